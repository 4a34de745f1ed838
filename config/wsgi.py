import os

from django.core.wsgi import get_wsgi_application

from infra import db_limits

# a page that reads a year of candles may take longer than a worker's statement
PAGE_STATEMENT_SECONDS = 30

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_wsgi_application()
db_limits.set_default_statement_limit(PAGE_STATEMENT_SECONDS)
