# Bars as SVG, for light and dark, without anything from outside.
#
#	awk -v title=TEXT -f bars.awk
#
# Reads lines of label, number, note, tabs between them; the labels that begin with "migrate_ext" are ours.

BEGIN {
	FS = "\t"
	LEFT = 212; WIDTH = 740; BAR = 22; STEP = 34; TOP = 52
}

{
	label[NR] = $1; value[NR] = $2; note[NR] = $3
	if ($2 + 0 > most)
		most = $2 + 0
}

# XML's own characters
function text(s)
{
	gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s); gsub(/>/, "\\&gt;", s)
	return s
}

END {
	height = TOP + NR * STEP + 8
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" aria-label=\"%s\">\n", WIDTH, height, WIDTH, height, text(title)
	print "<style>"
	print "text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600; font-size: 15px } .note { fill: #57606a }"
	print ".bar { fill: #8c959f } .ours { fill: #1a7f5a }"
	print "@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .note { fill: #9da7b3 } .bar { fill: #6e7681 } .ours { fill: #3fb98a } }"
	print "</style>"
	printf "<text class=\"title\" x=\"12\" y=\"26\">%s</text>\n", text(title)
	for (i = 1; i <= NR; i++)
	{
		y = TOP + (i - 1) * STEP
		w = most > 0 ? value[i] / most * (WIDTH - LEFT - 175) : 0
		printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", LEFT - 10, y + 16, text(label[i])
		printf "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"3\"/>\n", label[i] ~ /^migrate_ext/ ? "bar ours" : "bar", LEFT, y, w < 1 ? 1 : w, BAR
		printf "<text x=\"%.1f\" y=\"%d\">%.1f s<tspan class=\"note\" dx=\"8\">%s</tspan></text>\n", LEFT + w + 8, y + 16, value[i], text(note[i])
	}
	print "</svg>"
}
