# Runs TAP tests as prove does (it is made of the same parts), tells each assertion as it comes, and
# writes one line an assertion to the file that TAP_RESULTS names: pass, fail or skip, and its name.
#
#   run_tap.pl -I DIR... TEST...
#
# Several of them share the tests among themselves where TAP_CLAIMS names a folder: each test is run by who
# first makes a folder of its name there.
use strict;
use warnings;

use Getopt::Long;
use TAP::Harness;

$| = 1;

my @lib;
GetOptions('I=s' => \@lib) or die "usage: run_tap.pl -I DIR... TEST...\n";
@ARGV or die "run_tap.pl: no test\n";

my @results;

sub short_name
{
	my ($file) = @_;
	$file =~ s{.*/}{};
	$file =~ s{\.pl$}{};
	return $file;
}

# One assertion, of the parser of its file.
sub note_assertion
{
	my ($file, $assertion) = @_;
	my $name = "$file: " . $assertion->number . ' ' . $assertion->description;
	my $kind =
		!$assertion->is_ok                             ? 'fail'
	  : $assertion->has_skip || $assertion->has_todo ? 'skip'
	  :                                                'pass';
	$name .= ': ' . $assertion->explanation if $kind eq 'skip';
	push @results, "$kind $name";
	print $kind eq 'pass' ? '' : uc($kind) . ' ', "$name\n";
	return;
}

# What a test that died says: the end of its log, but for the servers that are stopped then.
sub last_words
{
	my ($file) = @_;
	open my $log, '<', "$ENV{TESTLOGDIR}/regress_log_$file" or return;
	my @lines = grep { /\S/ && !/^(\[[^ ]* )?#|^waiting for server|^server stopped/ } <$log>;
	return @lines ? substr($lines[-1] =~ s/\s+$//r, 0, 300) : ();
}

# What no assertion tells: a plan not kept, a death, a file skipped as a whole.
sub note_end
{
	my ($file, $parser) = @_;
	if ($parser->skip_all)
	{
		push @results, "skip $file: " . $parser->skip_all;
	}
	elsif (!$parser->failed && ($parser->has_problems || !$parser->tests_run))
	{
		my $why = join '; ', $parser->parse_errors, 'exit code ' . ($parser->exit // '?'), last_words($file);
		push @results, "fail $file: did not run to its end ($why)";
	}
	else
	{
		return;
	}
	print "$results[-1]\n";
	return;
}

# Whether this test is ours to run.
sub claimed
{
	my ($file) = @_;
	my $folder = $ENV{TAP_CLAIMS} or return 1;
	return mkdir "$folder/" . short_name($file);
}

my $harness = TAP::Harness->new({ lib => \@lib, verbosity => -3, timer => 0 });
$harness->callback(
	made_parser => sub {
		my ($parser, $job) = @_;
		my $file = short_name($job->[0]);
		$parser->callback(test => sub { note_assertion($file, $_[0]) });
		$parser->callback(EOF => sub { note_end($file, $_[0]) });
	});
my $all_passed = 1;
for my $test (@ARGV)
{
	next unless claimed($test);
	$all_passed = 0 unless $harness->runtests($test)->all_passed;
}

if (my $path = $ENV{TAP_RESULTS})
{
	open my $out, '>', $path or die "could not write $path: $!\n";
	print $out map { "$_\n" } @results;
	close $out;
}
exit($all_passed ? 0 : 1);
