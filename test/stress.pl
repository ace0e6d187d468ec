# The conservation harness as a program: called by script/stress, which has its options.
#
#   stress.pl [--minutes N] [--rounds N] [--seed N] [--clients N] [--rate N]
use strict;
use warnings;

my $out;

# Before PostgreSQL::Test::Utils has it all in the log.
BEGIN { open $out, '>&', \*STDOUT or die "STDOUT: $!"; $out->autoflush; }

use FindBin;
use lib "$FindBin::RealBin/t";
use Getopt::Long;
use Stress;
use Test::More;

my %opt;
GetOptions(\%opt, map { "$_=i" } qw(minutes rounds seed clients rate)) && !@ARGV or die "see script/stress --help\n";

# Rounds alone have no end in time, and minutes alone no number of rounds.
if (my $minutes = delete $opt{minutes})
{
	$opt{seconds} = 60 * $minutes;
	$opt{rounds} //= 1_000_000;
}

# What holds goes to the log, what doesn't to stderr.
Test::More->builder->output(\*STDOUT);
stress(%opt, report => sub { print $out "$_[0]\n" });
done_testing;
print $out Test::More->builder->is_passing ? "passed\n" : "FAILED\n";
