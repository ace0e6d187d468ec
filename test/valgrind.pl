# What valgrind found in processes of a server, as XML: each error that has a frame of ours, once.
#
#   valgrind.pl FILE...
#
# Prints errors with their stacks; the exit code is 1 if there are any. A process that was killed leaves a file
# that is cut off: what is whole in it counts.
use strict;
use warnings;

my $OURS = qr/migrate_ext\.so$/;

sub element
{
	my ($xml, $name) = @_;
	my ($text) = $xml =~ m{<$name>(.*?)</$name>}s;
	return undef unless defined $text;
	$text =~ s/&lt;/</g;
	$text =~ s/&gt;/>/g;
	$text =~ s/&amp;/&/g;
	return $text;
}

# "function (file.c:12)", or the library where it has no lines
sub frame_text
{
	my ($frame) = @_;
	my $function = element($frame, 'fn') // '?';
	my $file = element($frame, 'file');
	my $object = (element($frame, 'obj') // '?') =~ s{.*/}{}r;
	return defined $file ? "$function ($file:" . element($frame, 'line') . ')' : "$function (in $object)";
}

my %count;
for my $path (@ARGV)
{
	open my $in, '<', $path or die "$path: $!\n";
	my $xml = do { local $/; <$in> // '' };
	close $in;
	while ($xml =~ m{<error>(.*?)</error>}gs)
	{
		my $error = $1;
		my ($stack) = $error =~ m{<stack>(.*?)</stack>}s;
		my @frames = $stack =~ m{<frame>(.*?)</frame>}gs;
		next unless grep { (element($_, 'obj') // '') =~ $OURS } @frames;
		my $what = element($error, 'what') // element($error, 'text');
		$count{ join "\n", element($error, 'kind') . ": $what", map { '    ' . frame_text($_) } @frames }++;
	}
}
print "$_\n    $count{$_} times\n\n" for sort keys %count;
printf "%d processes, %d errors in our code\n", scalar @ARGV, scalar keys %count;
exit(%count ? 1 : 0);
