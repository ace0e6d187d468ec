# The Debian package: built from a copy of the tree as anybody builds one, installed by dpkg into a copy of PostgreSQL's
# installation with a package database of its own, used from there, and removed.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";
use IPC::Run;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROOT = "$FindBin::RealBin/../..";
my ($MAJOR) = qx(pg_config --version) =~ /(\d+)/;
my $NAME = "postgresql-$MAJOR-migrate-ext";
my $folder = PostgreSQL::Test::Utils::tempdir;

# The output of a program that must not fail. Its environment is a packager's: make's own variables would hand
# the tests' options on.
sub output_of
{
	my (@command) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ qw(env -i LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin), "HOME=$folder", @command ], \undef, \$out, \$err,
		IPC::Run::timeout(600));
	$ok or die "@command failed:\n" . substr($out, -3000) . "\n$err\n";
	return $out;
}

# ---------------------------------------------------------------------------------------------
# Built

mkdir "$folder/$_" for qw(build build/tree usr);
output_of('sh', '-euc', <<~'SH', 'sh', $ROOT, "$folder/build/tree");
	cd "$1"
	tar -cf - --exclude='./tmp_*' --exclude='*.o' --exclude='*.so' --exclude='./.build-*' --exclude='./migrate_ext--*' \
		--exclude=./log --exclude=./results --exclude=./output_iso --exclude=./.git . | tar -xf - -C "$2"
	SH
output_of('sh', '-euc', 'cd "$1" && exec dpkg-buildpackage -us -uc -b -j2 2>&1', 'sh', "$folder/build/tree");
my ($package) = glob "$folder/build/${NAME}_*.deb";
ok(defined $package, 'dpkg-buildpackage makes the package') or die "no package\n";
my ($changes) = glob "$folder/build/*.changes";
is(output_of('sh', '-c', 'lintian --tag-display-limit 0 "$1" 2>&1 || :', 'sh', $changes), '', 'lintian finds nothing');

# ---------------------------------------------------------------------------------------------
# What it is and has

my ($version) = slurp_file("$ROOT/migrate_ext.control") =~ /^default_version = '(.*)'$/m;
is(output_of('dpkg-deb', '--field', $package, 'Package') . output_of('dpkg-deb', '--field', $package, 'Version'), "$NAME\n$version\n",
	'its name and version');
my $depends = output_of('dpkg-deb', '--field', $package, 'Depends');
like($depends, qr/(^|, )postgresql-$MAJOR( |,|$)/m, "it needs PostgreSQL $MAJOR");
like($depends, qr/\blibc6 \(>= /, 'and the libraries that it was linked with');

my %mode;
for (split /\n/, output_of('dpkg-deb', '--contents', $package))
{
	my ($mode, $owner, $path) = /^(\S+) (\S+) +\d+ \S+ \S+ \.(\S+)/ or next;
	$mode{$path} = "$mode $owner" if $mode =~ /^-/;
}
is(join(' ', grep { $mode{$_} ne '-rw-r--r-- root/root' && !(m{/examples/} && $mode{$_} eq '-rwxr-xr-x root/root') } sort keys %mode),
	'', 'all files are root\'s, to read; of the examples some to run');
my @updates = map { s{.*/}{}r } glob "$ROOT/src/sql/update/*.sql";
is( join("\n", grep { !m{^/usr/share/doc/} } sort keys %mode),
	join("\n", sort "/usr/lib/postgresql/$MAJOR/lib/migrate_ext.so",
		map { "/usr/share/postgresql/$MAJOR/extension/$_" } 'migrate_ext.control', "migrate_ext--$version.sql", @updates),
	'the library and the extension\'s files, and nothing else');
for my $document (qw(copyright changelog README.md docs/roles.md examples/debian_files/README.md))
{
	ok(scalar(grep { m{^/usr/share/doc/$NAME/\Q$document\E(\.gz)?$} } keys %mode), "documentation: $document");
}

# ---------------------------------------------------------------------------------------------
# Installed. Neither by root nor where the package's dependencies are; all else is as ever, whatever the machine leaves out.

my $install_path = private_installation("$folder/usr");
unlink glob "$install_path/lib/migrate_ext* $folder/usr/share/postgresql/$MAJOR/extension/migrate_ext*";
output_of('sh', '-euc', 'mkdir -p "$1/info" "$1/updates" "$1/triggers"; touch "$1/status"', 'sh', "$folder/var/lib/dpkg");
my @dpkg = ('dpkg', "--root=$folder", "--log=$folder/dpkg.log", qw(--force-not-root --force-depends --path-include=*));
my @files = ('sh', '-euc', 'cd "$1" && find usr | LC_ALL=C sort', 'sh', $folder);
my @known = ('dpkg-query', '--show', '-f', '${Package} ${Version} ${Status}\n');
my ($before, $machine) = map { output_of(@$_) } \@files, \@known;

output_of(@dpkg, '--install', $package);
like(output_of(@dpkg, '--status', $NAME), qr/^Status: install ok installed$/m, 'dpkg installs it');
is(output_of(@dpkg, '--verify', $NAME), '', 'all files stand there as they were packed');
is(join("\n", sort grep { -f "$folder$_" } split /\n/, output_of(@dpkg, '--listfiles', $NAME)), join("\n", sort keys %mode), 'and no others');

# ---------------------------------------------------------------------------------------------
# In use

unlike(output_of('nm', '--dynamic', "$install_path/lib/migrate_ext.so"), qr/debug/, 'the library has no debug points');
$node = new_node('packaged', install_path => $install_path);
is(sql("SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'"), "$install_path/lib", 'a server with the package alone');
is(sql("SELECT extversion FROM pg_extension WHERE extname = 'migrate_ext'"), $version, 'CREATE EXTENSION');
is(sql("SELECT count(*) FROM pg_proc WHERE pronamespace = 'migrate_ext'::regnamespace AND proname LIKE 'debug%'"), '0',
	'there is no function of the tests');

sql(<<~'SQL');
	CREATE TABLE t (id bigint PRIMARY KEY, k integer NOT NULL);
	INSERT INTO t SELECT i, i % 7 FROM generate_series(1, 5000) i;
	SELECT migrate_ext.partition_by_range('t', 'id', 1000);
	SELECT migrate_ext.start('t');
	SQL
wait_live($node, 't');
sql('UPDATE t SET k = k + 1 WHERE id % 3 = 0; DELETE FROM t WHERE id % 5 = 0');
is(rows_that_differ($node, 't', 't_new'), '0', 'live: both tables are equal');
sql("CALL migrate_ext.finalize('t')");
sql('UPDATE t SET k = k + 1 WHERE id % 3 = 1; INSERT INTO t VALUES (5001, 1)');
is(rows_that_differ($node, 't', 't_orig'), '0', 'swapped: both tables are equal');
sql("CALL migrate_ext.complete('t', drop_original => true)");
is(sql("SELECT relkind, (SELECT count(*) FROM t) FROM pg_class WHERE oid = 't'::regclass"), 'p|4001', 'completed');

$node->stop;

# ---------------------------------------------------------------------------------------------
# Removed

output_of(@dpkg, '--remove', $NAME);
is(output_of(@dpkg, '--get-selections'), '', 'dpkg removes it, all of it');
is(output_of(@files), $before, 'every file is gone, and no other one');
is(output_of(@known), $machine, "the machine's own packages are those that were there");
done_testing();
