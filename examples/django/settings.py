import os

# Where the database is, libpq's variables tell: PGHOST, PGPORT, PGUSER.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "django"),
    }
}
INSTALLED_APPS = ["visits"]
SECRET_KEY = "of an example"
USE_TZ = True
