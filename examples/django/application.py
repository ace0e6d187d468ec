#!/usr/bin/env python3
"""An application at work: writers change visits all the time, through the model, and keep books of what they did. A line
with names of tables on standard input makes them stand still for a moment, while those tables are compared with the books;
the end of input ends the application. Whatever goes wrong ends it at once, with an error."""

import os
import random
import sys
import threading
import time
import traceback
from datetime import datetime, timedelta, timezone

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

from django.db import OperationalError, connection, transaction  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from django.db.models import F  # noqa: E402

from visits.models import Visit  # noqa: E402

WRITERS = 3
SEEDS = 20_000  # rows that an empty table gets
PAUSE = 0.005  # seconds from one operation of a writer to the next
FIELDS = [field.attname for field in Visit._meta.concrete_fields]


def prepare(connection, **_):
    """psycopg2 prepares nothing by itself: the statements of hot paths are, and a raw query executes them."""
    with connection.cursor() as cursor:
        cursor.execute("PREPARE visit (bigint) AS SELECT * FROM visits WHERE id = $1")
        cursor.execute("PREPARE count_up (bigint) AS UPDATE visits SET hits = hits + 1 WHERE id = $1 RETURNING *")


def some_time():
    return datetime.now(timezone.utc) - timedelta(minutes=random.randrange(300 * 24 * 60))


def new_visit(**fields):
    values = {"site": random.randrange(40), "path": f"/{random.randrange(1000)}", "hits": 0,
              "referrer": random.choice([None, "/"]), "at": some_time()}
    return Visit(**{**values, **fields})


def row_of(visit):
    return {name: getattr(visit, name) for name in FIELDS}


def is_conflict(error):
    """A deadlock or a serialization failure: to be repeated."""
    return getattr(error.__cause__, "pgcode", None) in ("40P01", "40001")


class Nothing(Exception):
    """Rolls a transaction back."""


class Writer(threading.Thread):
    """Nobody else writes the rows in its books, but for one row that all writers count up."""

    def __init__(self, books, shared_id):
        super().__init__()
        self.books = books  # rows by id
        self.shared_id = shared_id
        self.gone = []  # rows that were deleted
        self.turn = threading.Lock()  # held during an operation
        self.stopped = False
        self.operations = self.repeated = self.shared_hits = self.prepared = 0

    def run(self):
        try:
            while not self.stopped:
                with self.turn:
                    self.operate(random.choice(self.OPERATIONS))
                time.sleep(PAUSE)
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_prepared_statements")
                self.prepared = cursor.fetchone()[0]
            connection.close()
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def operate(self, operation):
        while True:
            try:
                operation(self)
                self.operations += 1
                return
            except OperationalError as error:
                if not is_conflict(error):
                    raise
                self.repeated += 1

    def note(self, *visits):
        self.books.update((visit.id, row_of(visit)) for visit in visits)

    def some_id(self):
        return random.choice(list(self.books))

    def check(self, visits):
        for visit in visits:
            if row_of(visit) != self.books[visit.id]:
                raise AssertionError(f"{row_of(visit)} was read, {self.books[visit.id]} was written")
        return visits

    def any(self):
        """One of this writer's rows, as it stands in the table."""
        return self.check([Visit.objects.get(pk=self.some_id())])[0]

    def read_prepared(self):
        self.check([Visit.objects.raw("EXECUTE visit (%s)", [self.some_id()])[0]])

    def read_by_cursor(self):
        ids = random.sample(list(self.books), 20)
        visits = self.check(list(Visit.objects.filter(pk__in=ids).iterator(chunk_size=5)))
        assert len(visits) == len(ids), f"{len(ids) - len(visits)} of {ids} are not there"

    def create(self):
        visit = new_visit()
        visit.save()
        self.note(visit)

    def create_many(self):
        self.note(*Visit.objects.bulk_create([new_visit() for _ in range(3)]))

    def create_again(self):
        """INSERT ... ON CONFLICT DO NOTHING, which names no key and so needs none without the partition key."""
        Visit.objects.bulk_create([new_visit(**self.books[self.some_id()])], ignore_conflicts=True)

    def update(self):
        visit = self.any()
        visit.path = f"/{random.randrange(1000)}"
        visit.save()
        self.note(visit)

    def move(self):
        """To another month, and so to another partition."""
        visit = self.any()
        visit.at = some_time()
        visit.save(update_fields=["at"])
        self.note(visit)

    def count_up(self):
        id = self.some_id()
        assert Visit.objects.filter(pk=id).update(hits=F("hits") + 1) == 1, f"{id} is not there"
        self.books[id]["hits"] += 1

    def count_up_prepared(self):
        id = self.some_id()
        visit = Visit.objects.raw("EXECUTE count_up (%s)", [id])[0]
        self.books[id]["hits"] += 1
        self.check([visit])

    def update_or_create(self):
        old = self.gone.pop() if self.gone else self.books[self.some_id()]
        new = row_of(new_visit(id=old["id"]))
        self.note(Visit.objects.update_or_create(id=old["id"], defaults=new)[0])

    def delete(self):
        visit = self.any()
        self.gone.append(self.books.pop(visit.id))
        assert visit.delete()[0] == 1, "it was not there"

    def commit(self):
        created = new_visit()
        with transaction.atomic():
            created.save()
            updated = self.any()
            updated.path = f"/with/{created.id}"
            updated.save()
        self.note(created, updated)

    def roll_back(self):
        try:
            with transaction.atomic():
                new_visit().save()
                self.any().delete()
                raise Nothing
        except Nothing:
            pass

    def count_shared(self):
        Visit.objects.filter(pk=self.shared_id).update(hits=F("hits") + 1)
        self.shared_hits += 1

    OPERATIONS = [any, read_prepared, read_by_cursor, create, create_many, create_again, update, move, count_up,
                  count_up_prepared, update_or_create, delete, commit, roll_back, count_shared]


def rows_of(table):
    table = connection.ops.quote_name(table)
    return {visit.id: row_of(visit) for visit in Visit.objects.raw(f"SELECT * FROM {table}")}


def compare(table, books):
    rows = rows_of(table)
    wrong = [id for id in rows.keys() | books.keys() if rows.get(id) != books.get(id)]
    if wrong:
        raise AssertionError(f"{len(wrong)} rows of {table} are wrong, such as {rows.get(wrong[0])}, "
                             f"which should be {books.get(wrong[0])}")


def say(text):
    print(text, flush=True)


def expected(writers, shared):
    books = {id: row for writer in writers for id, row in writer.books.items()}
    books[shared["id"]] = {**shared, "hits": shared["hits"] + sum(writer.shared_hits for writer in writers)}
    return books


def main():
    connection_created.connect(prepare)
    if not Visit.objects.exists():
        Visit.objects.bulk_create([new_visit() for _ in range(SEEDS)], batch_size=1000)
    books = rows_of("visits")
    shared = books.pop(min(books))
    writers = [Writer({id: row for id, row in books.items() if id % WRITERS == n}, shared["id"]) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    say("at work")
    for line in sys.stdin:
        for writer in writers:
            writer.turn.acquire()
        for table in line.split():
            compare(table, expected(writers, shared))
        say("as in the books: " + ", ".join(line.split()))
        for writer in writers:
            writer.turn.release()
    for writer in writers:
        writer.stopped = True
    for writer in writers:
        writer.join()
    compare("visits", expected(writers, shared))
    say(f"{sum(writer.operations for writer in writers)} operations, {sum(writer.repeated for writer in writers)} repeated, "
        f"{sum(writer.prepared for writer in writers)} prepared statements")


try:
    main()
except BaseException:
    traceback.print_exc()
    os._exit(1)  # whatever the writers do
