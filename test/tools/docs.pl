# docs/: errors.md has each error and event of the source and no other, links lead somewhere, and no SQL stands where the
# regress tests readme and docs don't run it.
use strict;
use warnings;

use File::Basename qw(dirname);
use FindBin;
use Test::More;

my $ROOT = "$FindBin::RealBin/../..";

sub slurp
{
	my ($file) = @_;
	open my $handle, '<:encoding(UTF-8)', "$ROOT/$file" or die "$file: $!";
	local $/;
	return scalar <$handle>;
}

sub files
{
	return map { s{^\Q$ROOT\E/}{}r } sort map { glob "$ROOT/$_" } @_;
}

# Empty lists, told line by line where they aren't.
sub none
{
	my ($name, @lines) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!@lines, $name) || diag(join "\n", @lines);
	return;
}

# ---------------------------------------------------------------------------------------------
# What the source can say

# SQLSTATEs by their names.
sub sqlstates
{
	my $headers = `pg_config --includedir-server`;
	chomp $headers;
	open my $handle, '<', "$headers/utils/errcodes.h" or die "errcodes.h: $!";
	my $text = join '', <$handle>, slurp('src/errors.h');
	my %state;
	while ($text =~ /#define (ERRCODE_\w+) MAKE_SQLSTATE\(([^)]*)\)/g)
	{
		my ($name, $code) = ($1, $2);
		$state{$name} = $code =~ s/[', ]//gr;
	}
	return \%state;
}

# The arguments of a call, from behind its opening parenthesis.
sub arguments
{
	my ($text, $from) = @_;
	my ($depth, @arguments) = (0, '');
	pos($text) = $from;
	while ($text =~ /\G("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)+'|.)/gs)
	{
		my $token = $1;
		last if $token eq ')' && $depth == 0;
		$depth++ if $token eq '(';
		$depth-- if $token eq ')';
		if ($token eq ',' && $depth == 0) { push @arguments, '' }
		else                              { $arguments[-1] .= $token }
	}
	return @arguments;
}

# A format as a reader sees it: what is filled in is "..."; undef if that is all.
sub shown
{
	my ($argument) = @_;
	my $text = join '', map { /^"(.*)"$/s ? $1 : '%d' } $argument =~ /("(?:[^"\\]|\\.)*"|\b[A-Z0-9_]+\b)/g;
	$text =~ s/\\(.)/$1/g;
	$text =~ s/%[-.\dl]*[a-zA-Z]/.../g;
	$text =~ s/(\.\.\.)+/.../g;
	$text =~ s/^(\S+) \.\.\. \.\.\.$/$1 .../;
	return $text =~ /[a-z]/i ? $text : undef;
}

# Of what is a bug or used by the extension alone nobody has to know the cure.
my %INTERNAL = map { $_ => 1 } qw(ERRCODE_INTERNAL_ERROR ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED);

# By "SQLSTATE message": where it stands.
sub messages
{
	my %state = %{ sqlstates() };
	my %message;
	my $add = sub {
		my ($file, $code, $argument) = @_;
		my ($name) = $code =~ /(ERRCODE_\w+)/;
		my $text = shown($argument);
		return if !defined $text || ($name && $INTERNAL{$name});
		$message{ ($name ? $state{$name} : '-') . " $text" } = $file;
	};
	for my $file (files('src/*.c'))
	{
		my $text = slurp($file);
		next if $file eq 'src/debug_point.c';
		while ($text =~ /\bereport\(\s*/g)
		{
			my ($level, @rest) = arguments($text, pos $text);
			next if $level =~ /^(?:NOTICE|INFO|DEBUG\d)$/;
			my $report = join ',', @rest;
			my ($code) = $report =~ /errcode\((.*)/s;
			next unless $report =~ /\berrmsg\(\s*/g;
			$add->($file, $code // '', (arguments($report, pos $report))[0]);
		}
		while ($text =~ /^\s+swap_request_withdraw\(/mg)
		{
			my (undef, $code, undef, $format) = arguments($text, pos $text);
			$add->($file, $code, $format);
		}
		# what a look at triggers and keys finds becomes the message of an MX004
		if ($file =~ m{/(?:sync_trigger|key_sql|replace)\.c$})
		{
			while ($text =~ /(?:return|refuse\(|problem =) ?psprintf\(\s*/g)
			{
				my ($format) = arguments($text, pos $text);
				$add->($file, 'ERRCODE_MIGRATION_TAMPERED', $format)
				  if $format =~ /^"(?:trigger|column|table|the partitions)\b/;
			}
		}
		while ($text =~ /migration_pause\(\w+, psprintf\(\s*/g)
		{
			$add->($file, '', (arguments($text, pos $text))[0]);
		}
	}
	for my $file (files('src/sql/*.sql'))
	{
		my $text = slurp($file);
		while ($text =~ /RAISE EXCEPTION '([^']*)'\s*USING ERRCODE = '(\w+)'/g)
		{
			$message{ $state{ 'ERRCODE_' . uc $2 } . " $1" } = $file;
		}
	}
	return \%message;
}

# ---------------------------------------------------------------------------------------------
# errors.md

my $errors = slurp('docs/errors.md');

# | `message` | SQLSTATE | what to do |
my %told;
while ($errors =~ /^\| `` ?(.*?) ?`` \| (\S+) \| (.*) \|$/mg)
{
	my ($message, $state, $cure) = ($1, $2, $3);
	is($told{"$state $message"}, undef, "errors.md tells once: $state $message");
	$told{"$state $message"} = $cure;
}
my %message = %{ messages() };
cmp_ok(scalar(keys %message), '>', 150, 'messages are found in the source');
none('each message of the source stands in docs/errors.md',
	map { "| `` $_->[1] `` | $_->[0] | | ($_->[2])" }
	map { [ split(/ /, $_, 2), $message{$_} ] } grep { !exists $told{$_} } sort { $message{$a} cmp $message{$b} || $a cmp $b } keys %message);
none('docs/errors.md has no message that the source lacks', grep { !exists $message{$_} } sort keys %told);
none('each message has its cure', grep { $told{$_} !~ /\w/ } sort keys %told);

my @ours = sort values %{ { map { $_ => slurp('src/errors.h') =~ /\b$_ MAKE_SQLSTATE\(([^)]*)\)/ ? $1 =~ s/[', ]//gr : '' }
		slurp('src/errors.h') =~ /#define (ERRCODE_\w+)/g } };
is(join(' ', $errors =~ /^### (MX\d+)/mg), join(' ', @ours), 'a section for each SQLSTATE of our own');

my %kind;
for my $file (files('src/*.c'))
{
	my $text = slurp($file);
	while ($text =~ /event_add(?:_silently)?\(\s*/g)
	{
		my (undef, $argument) = arguments($text, pos $text);
		$kind{$1}++ if $argument && $argument =~ /^\s*"(\w+)"$/;
	}
}
$kind{$_}++ for grep { $_ ne 'migrate_ext' } map { slurp($_) =~ /#define EVENT_\w+ "(\w+)"/g } files('src/*.[ch]');
my ($events) = $errors =~ /^## Events$(.*?)(?=^## |\z)/ms;
is(join(' ', sort map { /`(\w+)`/g } ($events // '') =~ /^\| (`[^|]*) \|/mg), join(' ', sort keys %kind), 'each kind of event is told');

# ---------------------------------------------------------------------------------------------
# Links

# What a heading is called by, as GitHub does it.
sub anchors
{
	my ($file) = @_;
	my %seen;
	my $text = slurp($file) =~ s/^```.*?^```$//msgr;
	return map {
		my $anchor = lc $_;
		$anchor =~ s/\[([^\]]*)\]\([^)]*\)/$1/g;
		$anchor =~ s/[^\w\- ]//g;
		$anchor =~ s/ /-/g;
		my $n = $seen{$anchor}++;
		($n ? "$anchor-$n" : $anchor) => 1
	} $text =~ /^#+ +(.*?) *$/mg;
}

my @broken;
for my $file (files('*.md', 'docs/*.md', 'src/*.md', 'examples/*/*.md'))
{
	my $text = slurp($file) =~ s/^```.*?^```$//msgr;
	while ($text =~ /\]\(([^)\s]+)\)/g)
	{
		my $link = $1;
		next if $link =~ /^https?:/;
		my ($path, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;
		my $target = $path eq '' ? $file : dirname($file) . "/$path";
		if (!-e "$ROOT/$target") { push @broken, "$file: $link"; next }
		my %anchor = defined $anchor ? anchors($target) : ();
		push @broken, "$file: $link" if defined $anchor && !$anchor{$anchor};
	}
}
none('links lead somewhere', @broken);
my $indexes = slurp('README.md') . slurp('docs/README.md');
none('a page is found from README.md or docs/README.md', grep { $indexes !~ m{\((?:docs/)?\Q$_\E[)#]} } grep { $_ ne 'README.md' } map { m{([^/]+)$} } files('docs/*.md'));

# ---------------------------------------------------------------------------------------------
# SQL that is not run

# Regress runs the blocks fenced as sql, so none may stand in another one: indented, or of another fence.
# A line for a shell may have SQL in its arguments.
my $SHELL = qr/^\s+(?:until psql|psql) /;
my $SQL = qr/\bmigrate_ext\.|^\s*(?:SELECT|WITH|INSERT|UPDATE|DELETE|TRUNCATE|COPY|CREATE|ALTER|DROP|GRANT|REVOKE|CALL|DO|SET|RESET|BEGIN|COMMIT|ROLLBACK|ANALYZE|VACUUM)\b/i;
my (@loose, $blocks);
for my $file (files('README.md', 'docs/*.md'))
{
	my ($fence, $before, $code) = ('', '', 0);
	for my $line (split /\n/, slurp($file))
	{
		if ($line =~ /^\s*(?:```|~~~)(.*)/)
		{
			$blocks++ if $line eq '```sql';
			$fence = $fence ? '' : $line;
			next;
		}
		# a paragraph goes on with an indented line, a block of code begins after an empty one
		$code = $fence ? $fence ne '```sql' : $line =~ /^(?: {4}|\t)/ ? $code || $before !~ /\S/ : 0;
		push @loose, "$file: $line" if $code && $line =~ $SQL && $line !~ $SHELL;
		$before = $line;
	}
}
cmp_ok($blocks, '>', 30, 'blocks of SQL are found');
none('each block of SQL is one that the tests run', @loose);

done_testing();
