from django.db import models


class Visit(models.Model):
    id = models.BigAutoField(primary_key=True)
    site = models.IntegerField(db_index=True)
    path = models.TextField()
    hits = models.IntegerField(default=0)
    referrer = models.TextField(null=True)
    at = models.DateTimeField()

    class Meta:
        db_table = "visits"
