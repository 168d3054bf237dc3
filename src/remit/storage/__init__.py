"""Storage: one database (SQLite by default, Postgres by URL), its tables and their migrations."""
