# examples/debian_files, as its README tells: what dpkg knows about this machine, loaded, partitioned under
# load, undone and completed, by the very files that a newcomer runs. The control is computed here, in
# Perl, from dpkg's own files. Then the same with a small dpkg of our own, full of surprises.
use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $EXAMPLE = "$FindBin::RealBin/../../examples/debian_files";
my $DPKG    = '/var/lib/dpkg';

# Packages a second that are installed again or repaired, by each load.
my $RATE = 40;

plan skip_all => "no $DPKG/info: this machine has no dpkg" unless -d "$DPKG/info";
plan skip_all => "no md5sums in $DPKG/info" unless glob "$DPKG/info/*.md5sums";

$node = new_node('main');

# One step. Each ends with the example's own checks, which end psql with an error.
sub step
{
	my ($file) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return example_step("$EXAMPLE/$file");
}

sub start_application
{
	my (@scripts) = @_;
	my $load = start_pgbench(
		$node,
		clients  => 2,
		protocol => 'prepared',
		args     => [ '--rate' => $RATE, map { ('--file' => "$EXAMPLE/$_") } @scripts ]);
	wait_for_writes();
	return $load;
}

# Until the application has written more than it had when we came here.
sub wait_for_writes
{
	my $sum = sql('SELECT sum(installs) FROM packages');
	return ok(poll_query($node, "SELECT sum(installs) > $sum + 3 FROM packages"), 'the application writes');
}

# ---------------------------------------------------------------------------------------------
# The control: dpkg's files, read here

# What dpkg calls its files of a package => the package's section
sub sections
{
	my ($dir) = @_;
	my %section;
	my @format = map { "\${$_}" } qw(Package Architecture Multi-Arch Section);
	open my $dpkg, '-|', 'dpkg-query', "--admindir=$dir", '-W', '-f', join("\x01", @format) . "\n"
	  or die "dpkg-query: $!";
	while (my $line = <$dpkg>)
	{
		chomp $line;
		my ($package, $architecture, $multi_arch, $section) = split /\x01/, $line, -1;
		$package .= ":$architecture" if $multi_arch eq 'same';
		$section{$package} = $section eq '' ? 'none' : $section;
	}
	close $dpkg or die 'dpkg-query failed';
	return %section;
}

# (files by section as lines "section|n", checksum of all lines, number of lines)
sub control
{
	my ($dir) = @_;
	my %section = sections($dir);
	my (%count, @lines);
	for my $path (glob "$dir/info/*.md5sums")
	{
		my ($package) = $path =~ m{([^/]+)\.md5sums$};
		my @of_package = split /\n/, slurp_file($path);
		$count{ $section{$package} // 'none' } += @of_package if @of_package;
		push @lines, map { "$package.md5sums:$_\n" } @of_package;
	}
	return (
		join("\n", map { "$_|$count{$_}" } sort keys %count),
		md5_hex(join '', sort @lines),
		scalar @lines);
}

my $BY_SECTION = 'SELECT section, count(*) FROM files GROUP BY 1 ORDER BY section COLLATE "C"';

# ---------------------------------------------------------------------------------------------
# This machine

sub whole_life
{
	my ($by_section, $checksum, $rows) = control($DPKG);
	note "$rows files";
	step('01_load.sql');
	is(sql('SELECT count(*), fingerprint() FROM files'), "$rows|$checksum", 'every line of dpkg is loaded');

	my $old = start_application('install_again.sql', 'repair.sql');
	step($_) for '02_sharding_key.sql', '03_partitions.sql', '04_backfill.sql';
	wait_for_writes();
	pgbench_ok(stop_pgbench($old), 'the old release');

	my $new = start_application('install_again_with_section.sql', 'repair.sql');
	step('05_finalize.sql');
	wait_for_writes();
	is(sql($BY_SECTION), $by_section, 'finalize: files by section are what dpkg has');
	is(rows_that_differ_in_contents(), '0', 'and the original is kept complete');
	step('06_undo.sql');
	wait_for_writes();
	step('07_complete.sql');
	wait_for_writes();
	pgbench_ok(stop_pgbench($new), 'the new release');

	step('check.sql');
	is(sql($BY_SECTION), $by_section, 'at the end: files by section are what dpkg has');
	is(sql('SELECT fingerprint()'), $checksum, 'and the contents are what was loaded');
	is( sql('SELECT count(*) FROM (SELECT tableoid FROM files GROUP BY 1 HAVING count(DISTINCT section) > 1) AS leaves'),
		'0', 'a partition holds one section');
	is(sql("SELECT relkind, to_regclass('files_orig') FROM pg_class WHERE oid = 'files'::regclass"),
		'p|', 'the table is partitioned, the original gone');
	return;
}

# The key of a row that nobody has written since is NULL in the original: all else must be equal.
sub rows_that_differ_in_contents
{
	return sql(<<~SQL);
		WITH a AS (SELECT package, path, md5, installs FROM files),
		     b AS (SELECT package, path, md5, installs FROM files_orig)
		SELECT (SELECT count(*) FROM (TABLE a EXCEPT ALL TABLE b) AS missing)
		     + (SELECT count(*) FROM (TABLE b EXCEPT ALL TABLE a) AS extra)
		SQL
}

# ---------------------------------------------------------------------------------------------
# Surprises that this machine may not have

my %SURPRISE = (
	'plain'       => { Section => 'admin', paths => ['usr/bin/plain'] },
	'sectionless' => { paths   => [ 'etc/none', 'etc/none too' ] },
	'slash'       => { Section => 'non-free/firmware', Version => '2:1.0~rc1-1+b2', paths => ['lib/firmware/a'] },
	'same'        => { 'Multi-Arch' => 'same', Section => 'libs', paths => [ 'usr/lib/same', 'usr/share/same' ] },
	'empty'       => { Section => 'oldlibs', paths => [] },
	'quoted'      => { Section => "it's", paths => [ '"', "'", '\\', '\\N', '\\.', ',', '$$', '%s', ' blank ', "tab\tcr\rend" ] },
	'utf8'        => { Section => "\xc3\x84rger", paths => ["usr/share/F\xc5\x91tan\xc3\xbas\xc3\xadtv\xc3\xa1ny.crt"] });

sub make_dpkg
{
	my $dir = PostgreSQL::Test::Utils::tempdir('dpkg');
	mkdir "$dir/info" or die "mkdir: $!";
	for my $package (sort keys %SURPRISE)
	{
		my %field = (Version => '1', %{ $SURPRISE{$package} });
		my $paths = delete $field{paths};
		append_to_file(
			"$dir/status",
			join "\n",
			"Package: $package", 'Status: install ok installed', 'Architecture: amd64',
			(map { "$_: $field{$_}" } sort keys %field),
			"Description: a test\n\n");
		my $name = ($field{'Multi-Arch'} // '') eq 'same' ? "$package:amd64" : $package;
		append_to_file("$dir/info/$name.md5sums", join "\n", map { md5_hex($_) . "  $_" } @$paths);
	}
	append_to_file("$dir/info/unknown.md5sums", md5_hex('') . "  of no package\n");
	return $dir;
}

sub life_with_surprises
{
	my $dir = make_dpkg();
	local $ENV{DPKG_ADMINDIR} = $dir;
	my ($by_section, $checksum, $rows) = control($dir);
	sql('DROP TABLE files, packages, md5sums, loaded; DROP FUNCTION fingerprint');
	step('01_load.sql');
	example_sees(
		"$EXAMPLE/check.sql",
		"CREATE TABLE lost AS SELECT * FROM files WHERE path = 'usr/bin/plain'; DELETE FROM files WHERE path = 'usr/bin/plain'",
		'INSERT INTO files TABLE lost; DROP TABLE lost',
		'section admin: 0 files instead of 1');
	example_sees(
		"$EXAMPLE/check.sql",
		"UPDATE files SET path = path || 'x' WHERE path = 'usr/bin/plain'",
		"UPDATE files SET path = 'usr/bin/plain' WHERE package = 'plain'",
		'others than those that were loaded');
	example_sees(
		"$EXAMPLE/check.sql",
		'UPDATE packages SET installs = installs + 1',
		'UPDATE packages SET installs = installs - 1',
		'installed 1 times instead of 2');
	step($_) for '02_sharding_key.sql', '03_partitions.sql', '04_backfill.sql', '05_finalize.sql';
	is(sql('SELECT count(*), fingerprint() FROM files'), "$rows|$checksum", 'surprises: all are there, as they were');
	is(sql($BY_SECTION), $by_section, 'surprises: each where it belongs');
	is( sql('SELECT name, version, section FROM packages WHERE section IS NULL OR version <> $$1$$ ORDER BY 1'),
		"sectionless|1|\nslash|2:1.0~rc1-1+b2|non-free/firmware", 'surprises: packages, too');
	like(errors("INSERT INTO files (package, path, md5) VALUES ('plain', 'usr/bin/new', '')"), qr/null value in column "section"/,
		'a release that gives no section comes too late');
	step('06_undo.sql');
	step('07_complete.sql');
	is(sql($BY_SECTION), $by_section, 'surprises: and at the end');
	return;
}

whole_life();
life_with_surprises();
unlike(slurp_file($node->logfile), qr/deadlock detected/, 'no deadlock');

$node->stop;
done_testing;
