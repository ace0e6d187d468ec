# examples/rails: ActiveRecord's migrations up and down, and interrupted, beside an application of ActiveRecord's models.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FrameworkTest;
use Test::More;

test_framework(
	name     => 'rails',
	versions => 'schema_migrations',
	app      => [qw(ruby application.rb)],
	command  => sub { return ('rake', 'db:migrate', 'VERSION=' . (20260101000000 + $_[1])) });

done_testing();
