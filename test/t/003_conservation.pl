# A short run of the conservation harness (Stress.pm); script/stress makes long ones.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Stress;
use Test::More;

stress(rounds => 6, seconds => 20);
done_testing;
