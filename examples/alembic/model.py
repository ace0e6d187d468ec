from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, Text
from sqlalchemy.orm import declarative_base

# Where the database is, libpq's variables tell: PGHOST, PGPORT, PGDATABASE, PGUSER.
URL = "postgresql+psycopg2://"

Base = declarative_base()


class Visit(Base):
    __tablename__ = "visits"

    site = Column(Integer, primary_key=True, autoincrement=False)
    id = Column(BigInteger, Identity(), primary_key=True)
    path = Column(Text, nullable=False)
    hits = Column(Integer, nullable=False, server_default="0")
    referrer = Column(Text)
    at = Column(DateTime(timezone=True), nullable=False)
