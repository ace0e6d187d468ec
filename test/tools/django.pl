# examples/django: Django's migrations up and down, and interrupted, beside an application of Django's models.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FrameworkTest;
use Test::More;

test_framework(
	name     => 'django',
	versions => 'django_migrations',
	app      => [qw(python3 application.py)],
	command  => sub { return (qw(python3 manage.py migrate visits), sprintf('%04d', $_[1])) });

done_testing();
