#!/usr/bin/env python3
"""An application at work: writers change visits all the time and keep books of what they did, one by SQLAlchemy's sessions,
two by psycopg 3, which prepares each statement on the server. A line with names of tables on standard input makes them stand
still for a moment, while those tables are compared with the books; the end of input ends the application. Whatever goes wrong
ends it at once, with an error."""

import os
import random
import sys
import threading
import time
import traceback
from datetime import datetime, timezone

import psycopg
from sqlalchemy import MetaData, create_engine, delete, insert, literal_column, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from model import URL, Visit

SEEDS = 20_000  # rows that an empty table gets
PAUSE = 0.005  # seconds from one operation of a writer to the next
FIELDS = [column.name for column in Visit.__table__.columns]
CONFLICTS = ("40P01", "40001")  # a deadlock, a serialization failure: to be repeated

visits = Visit.__table__
engine = create_engine(URL)


def new_values(**fields):
    return {"site": random.randrange(40), "path": f"/{random.randrange(1000)}", "hits": 0,
            "referrer": random.choice([None, "/"]), "at": datetime.now(timezone.utc), **fields}


def upsert(values):
    statement = postgresql.insert(Visit).values(values)
    changes = {name: statement.excluded[name] for name in FIELDS if name not in ("site", "id")}
    return statement.on_conflict_do_update(index_elements=["site", "id"], set_=changes)


def at_key(key):
    return (Visit.site == key[0]) & (Visit.id == key[1])


class Nothing(Exception):
    """Rolls a transaction back."""


class Writer(threading.Thread):
    """Nobody else writes the rows in its books, but for one row that all writers count up."""

    def __init__(self, books, shared_key):
        super().__init__()
        self.books = books  # rows by key
        self.shared_key = shared_key
        self.gone = []  # rows that were deleted
        self.turn = threading.Lock()  # held during an operation
        self.stopped = False
        self.operations = self.repeated = self.shared_hits = self.prepared = 0

    def run(self):
        try:
            self.connect()
            while not self.stopped:
                with self.turn:
                    self.operate(random.choice(self.OPERATIONS))
                time.sleep(PAUSE)
            self.end()
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def operate(self, operation):
        while True:
            try:
                operation(self)
                self.operations += 1
                return
            except (DBAPIError, psycopg.Error) as error:
                if getattr(error, "sqlstate", None) not in CONFLICTS and \
                        getattr(getattr(error, "orig", None), "pgcode", None) not in CONFLICTS:
                    raise
                self.repeated += 1

    def note(self, row):
        self.books[row["site"], row["id"]] = row

    def some_key(self):
        return random.choice(list(self.books))

    def check(self, row):
        wanted = self.books[row["site"], row["id"]]
        assert row == wanted, f"{row} was read, {wanted} was written"

    def row_that_was(self):
        """One that is there, or was, with new values."""
        old = self.gone.pop() if self.gone else self.books[self.some_key()]
        return new_values(site=old["site"], id=old["id"])


def row_of(visit):
    return {name: getattr(visit, name) for name in FIELDS}


class ModelWriter(Writer):
    """Works with sessions and objects, on psycopg2."""

    def connect(self):
        pass

    def end(self):
        pass

    def any(self, session):
        visit = session.get(Visit, self.some_key())
        self.check(row_of(visit))
        return visit

    def read(self):
        with Session(engine) as session:
            self.any(session)

    def create(self):
        with Session(engine) as session:
            visit = Visit(**new_values())
            session.add(visit)
            session.commit()
            self.note(row_of(visit))

    def commit(self):
        with Session(engine) as session:
            created = [Visit(**new_values()) for _ in range(3)]
            session.add_all(created)
            session.flush()
            updated = self.any(session)
            updated.path = f"/with/{created[0].id}"
            session.commit()
            for visit in created + [updated]:
                self.note(row_of(visit))

    def count_up(self):
        with Session(engine) as session:
            visit = self.any(session)
            visit.hits = Visit.hits + 1
            session.commit()
            self.note(row_of(visit))

    def move(self):
        """To another site, and so mostly to another partition."""
        with Session(engine) as session:
            visit = self.any(session)
            old = (visit.site, visit.id)
            visit.site = random.randrange(40)
            session.commit()
            del self.books[old]
            self.note(row_of(visit))

    def upsert(self):
        with Session(engine) as session:
            row = self.row_that_was()
            session.execute(upsert(row))
            session.commit()
            self.note(row)

    def delete(self):
        with Session(engine) as session:
            visit = self.any(session)
            key = (visit.site, visit.id)
            session.delete(visit)
            session.commit()
            self.gone.append(self.books.pop(key))

    def roll_back(self):
        try:
            with Session(engine) as session:
                session.add(Visit(**new_values()))
                session.delete(self.any(session))
                session.flush()
                raise Nothing
        except Nothing:
            pass

    def count_shared(self):
        with Session(engine) as session:
            session.execute(update(Visit).where(at_key(self.shared_key)).values(hits=Visit.hits + 1))
            session.commit()
        self.shared_hits += 1

    OPERATIONS = [read, create, commit, count_up, move, upsert, delete, roll_back, count_shared]


class PreparedWriter(Writer):
    """Works with statements of the model's table, on psycopg 3; SQLAlchemy 1.4 has no dialect for it, but makes their text."""

    def connect(self):
        self.connection = psycopg.connect("", autocommit=True, row_factory=psycopg.rows.dict_row)
        self.connection.prepare_threshold = 0  # at its first execution

    def end(self):
        self.prepared = self.connection.execute("SELECT count(*) AS n FROM pg_prepared_statements").fetchone()["n"]
        self.connection.close()

    def execute(self, statement):
        compiled = statement.compile(dialect=postgresql.dialect())
        return self.connection.execute(str(compiled), compiled.params)

    def one(self, statement):
        rows = self.execute(statement).fetchall()
        assert len(rows) == 1, f"{len(rows)} rows instead of one of: {statement}"
        return rows[0]

    def read(self):
        self.check(self.one(select(Visit).where(at_key(self.some_key()))))

    def read_star(self):
        self.check(self.one(select(literal_column("*")).select_from(visits).where(at_key(self.some_key()))))

    def create(self):
        row = new_values()
        row["id"] = self.one(insert(Visit).values(row).returning(Visit.id))["id"]
        self.note(row)

    def count_up(self):
        key = self.some_key()
        row = self.one(update(Visit).where(at_key(key)).values(hits=Visit.hits + 1).returning(*visits.columns))
        self.books[key]["hits"] += 1
        self.check(row)

    def upsert(self):
        row = self.row_that_was()
        self.execute(upsert(row))
        self.note(row)

    def delete(self):
        key = self.some_key()
        self.one(delete(Visit).where(at_key(key)).returning(Visit.id))
        self.gone.append(self.books.pop(key))

    def commit(self):
        row = new_values()
        with self.connection.transaction():
            row["id"] = self.one(insert(Visit).values(row).returning(Visit.id))["id"]
            self.note(self.one(update(Visit).where(at_key(self.some_key())).values(path=f"/with/{row['id']}")
                               .returning(literal_column("*"))))
        self.note(row)

    def roll_back(self):
        with self.connection.transaction():
            self.one(delete(Visit).where(at_key(self.some_key())).returning(Visit.id))
            raise psycopg.Rollback()

    def count_shared(self):
        self.one(update(Visit).where(at_key(self.shared_key)).values(hits=Visit.hits + 1).returning(Visit.hits))
        self.shared_hits += 1

    OPERATIONS = [read, read_star, create, count_up, upsert, delete, commit, roll_back, count_shared]


def rows_of(table):
    with engine.connect() as connection:
        rows = connection.execute(select(literal_column("*")).select_from(visits.to_metadata(MetaData(), name=table)))
        return {(row["site"], row["id"]): dict(row) for row in rows.mappings()}


def compare(table, books):
    rows = rows_of(table)
    wrong = [key for key in rows.keys() | books.keys() if rows.get(key) != books.get(key)]
    if wrong:
        raise AssertionError(f"{len(wrong)} rows of {table} are wrong, such as {rows.get(wrong[0])}, "
                             f"which should be {books.get(wrong[0])}")


def say(text):
    print(text, flush=True)


def expected(writers, shared):
    books = {key: row for writer in writers for key, row in writer.books.items()}
    hits = shared["hits"] + sum(writer.shared_hits for writer in writers)
    books[shared["site"], shared["id"]] = {**shared, "hits": hits}
    return books


def seed():
    with Session(engine) as session:
        if session.execute(select(Visit).limit(1)).first() is None:
            session.execute(insert(Visit), [new_values() for _ in range(SEEDS)])
            session.commit()


def main():
    seed()
    books = rows_of("visits")
    shared = books.pop(min(books))
    kinds = [ModelWriter, PreparedWriter, PreparedWriter]
    writers = [kind({key: row for key, row in books.items() if key[1] % len(kinds) == n}, (shared["site"], shared["id"]))
               for n, kind in enumerate(kinds)]
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
