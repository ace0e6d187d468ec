# examples/alembic: Alembic's revisions up and down, and interrupted, beside an application of SQLAlchemy's models.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FrameworkTest;
use Test::More;

test_framework(
	name     => 'alembic',
	versions => 'alembic_version',
	app      => [qw(python3 application.py)],
	command  => sub { return ('alembic', $_[1] > $_[0] ? 'upgrade' : 'downgrade', sprintf('%04d', $_[1])) });

done_testing();
