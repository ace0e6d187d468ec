#!/bin/sh
# The blocks of SQL in the pages named, each page's in a database of its own, as a script for psql.
# shellcheck disable=SC2016
for page in "$@"; do
	grep -q '^```sql$' "$page" || continue
	cat <<-END
		\\echo == $(basename "$page")
		CREATE DATABASE regress_docs;
		\\c regress_docs
		SET client_min_messages = warning;
		\\o /dev/null
		$(sed -n '/^```sql$/,/^```$/{ /^```/d; p; }' "$page")
		\\o
		SELECT migration, state, target, original FROM migrate_ext.migrations ORDER BY migration;
		\\c :here
		DROP DATABASE regress_docs WITH (FORCE);
	END
done
