# AEGIS: one image for every process; compose.yaml says which one a container becomes
FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /tmp/
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -r /tmp/requirements.txt
COPY locale /tmp/locale
RUN /venv/bin/python -m babel.messages.frontend -q compile \
    -i /tmp/locale/ko/LC_MESSAGES/django.po -o /tmp/locale/ko/LC_MESSAGES/django.mo -l ko

FROM python:3.11-slim-bookworm
# pg_dump and pg_restore, for backups
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-common ca-certificates \
    && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y && apt-get install -y --no-install-recommends postgresql-client-18 \
    && rm -rf /var/lib/apt/lists/* && useradd --uid 1000 --create-home aegis && install -d -o aegis /home/aegis/home
COPY --from=build /venv /venv
WORKDIR /app
COPY . .
COPY --from=build /tmp/locale/ko/LC_MESSAGES/django.mo locale/ko/LC_MESSAGES/django.mo
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 AEGIS_HOME=/home/aegis/home AEGIS_BIND_ADDRESS=0.0.0.0
USER aegis
ENTRYPOINT ["python", "manage.py"]
CMD ["process"]
