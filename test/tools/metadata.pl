# What is told about the extension to programs of others: META.json keeps to the PGXN meta spec 1.0.0, all places that
# name the version name the same one, and what is referred to is there.
use strict;
use warnings;

use FindBin;
use JSON::PP;
use Test::More;

my $ROOT = "$FindBin::RealBin/../..";

sub slurp
{
	my ($file) = @_;
	open my $handle, '<:encoding(UTF-8)', "$ROOT/$file" or die "$file: $!";
	local $/;
	return scalar <$handle>;
}

my ($version) = slurp('Makefile') =~ /^EXTVERSION = (\S+)$/m;
like($version, qr/^\d+\.\d+$/, 'the version is one of two numbers');
my ($default) = slurp('migrate_ext.control') =~ /^default_version = '(.*)'$/m;
is($default, $version, 'the control file has it');
my ($debian) = slurp('debian/changelog') =~ /^migrate-ext \((\S+)\) /;
is($debian, $version, 'the Debian package has it');
like(slurp('CHANGELOG.md'), qr/^## \Q$version\E /m, 'CHANGELOG.md has it');

# ---------------------------------------------------------------------------------------------
# META.json

my $SEMVER = qr/^(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[a-zA-Z][-0-9A-Za-z]*)?$/;
my $TERM = qr{^[^\s/\\[:cntrl:]]{2,}$};
my $TAG = qr{^[^/\\[:cntrl:]]{1,255}$};

my $meta = decode_json(slurp('META.json'));
my %OPTIONAL = map { $_ => 1 } qw(description generated_by tags no_index prereqs release_status resources);
my %REQUIRED = map { $_ => 1 } qw(name abstract version maintainer license provides meta-spec);

is(join(' ', grep { !exists $meta->{$_} } sort keys %REQUIRED), '', 'META.json has all that is required');
is(join(' ', grep { !$REQUIRED{$_} && !$OPTIONAL{$_} } sort keys %$meta), '', 'and nothing that the spec has no word for');
like($meta->{name}, $TERM, 'the name is a term');
is($meta->{'meta-spec'}{version}, '1.0.0', 'it is of the meta spec 1.0.0');
like($meta->{version}, $SEMVER, 'the version is a semantic one');
is($meta->{version}, "$version.0", 'and ours');
ok(length $meta->{$_}, "there is a text: $_") for qw(abstract description maintainer);
is($meta->{license}, 'postgresql', 'the license is one of the spec\'s keywords');
like(slurp('LICENSE'), qr/^PostgreSQL License$/m, 'and that of LICENSE');

is(join(' ', keys %{ $meta->{provides} }), 'migrate_ext', 'it provides the extension');
my $provided = $meta->{provides}{migrate_ext};
is($provided->{version}, $meta->{version}, 'of the same version');
ok(-e "$ROOT/$provided->{$_}", "$provided->{$_} is there") for qw(file docfile);

my %PHASE = map { $_ => 1 } qw(configure build test runtime develop);
my %RELATION = map { $_ => 1 } qw(requires recommends suggests conflicts);
for my $phase (sort keys %{ $meta->{prereqs} })
{
	ok($PHASE{$phase}, "prereqs: $phase is a phase");
	for my $relation (sort keys %{ $meta->{prereqs}{$phase} })
	{
		ok($RELATION{$relation}, "prereqs: $relation is a relation");
		my $of = $meta->{prereqs}{$phase}{$relation};
		ok($of->{$_} eq '0' || $of->{$_} =~ $SEMVER, "prereqs: $_ has a version") for sort keys %$of;
	}
}
my ($oldest) = slurp('src/compat.h') =~ /PG_VERSION_NUM < (\d+)0000/;
is($meta->{prereqs}{runtime}{requires}{PostgreSQL}, "$oldest.0.0", 'it needs the oldest PostgreSQL that compiles');
is(slurp('debian/pgversions'), "$oldest+\n", 'so does the Debian package');
like($_, $TAG, "tag: $_") for @{ $meta->{tags} };
ok(-d "$ROOT/$_", "no_index: $_ is a folder") for @{ $meta->{no_index}{directory} };
unlike(slurp('META.json'), qr{\w://|\@}, 'it names no host');

done_testing();
