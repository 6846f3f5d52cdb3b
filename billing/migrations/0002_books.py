"""Open the house's accounts, and let the database itself keep the books honest.

Triggers refuse to change or delete a transfer or a purchase, check that a resolving transfer fits its pending one, and keep the
identity of accounts. Altering a table on SQLite rebuilds it without its triggers, so a migration that does so ends with
`close_books` again; `manage.py check_ledger` reports a trigger that is missing.
"""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

HOUSE = {
    "bank": "IDR",
    "sales": "IDR",
    "corrections_idr": "IDR",
    "issued": "TOKEN",
    "bonus": "TOKEN",
    "consumed": "TOKEN",
    "corrections_token": "TOKEN",
}

# What a transfer must fulfil beside its constraints. `count = 2` also says that both accounts exist and differ.
ONE_UNIT = (
    "(SELECT count(*) FROM billing_account WHERE id IN (NEW.debit_id, NEW.credit_id) AND unit = NEW.unit) = 2"
)
FITS_ITS_HOLD = (
    "EXISTS (SELECT 1 FROM billing_transfer hold WHERE hold.id = NEW.pending_id AND hold.phase = 'pending'"
    " AND hold.debit_id = NEW.debit_id AND hold.credit_id = NEW.credit_id"
    " AND hold.unit = NEW.unit AND hold.kind = NEW.kind"
    " AND (hold.amount = NEW.amount OR (NEW.phase = 'post' AND hold.amount > NEW.amount)))"
)

NEVER_CHANGED = "transfers and purchases are never changed or deleted: a correction is a transfer of its own"
UNITS_DIFFER = "a transfer is between two accounts of its unit"
DOES_NOT_FIT = (
    "a transfer that resolves a pending one has its accounts, unit and kind, and at most its amount"
)
TWICE = "UNIQUE constraint failed: billing_transfer has this id, key or pending_id"
ACCOUNT_STAYS = "accounts are never deleted and keep their owner, name and unit"

POSTGRESQL = [
    f"""
    CREATE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '{NEVER_CHANGED}' USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER transfer_is_never_changed BEFORE UPDATE OR DELETE ON billing_transfer
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change()
    """,
    """
    CREATE TRIGGER transfer_is_never_truncated BEFORE TRUNCATE ON billing_transfer
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change()
    """,
    """
    CREATE TRIGGER purchase_is_never_changed BEFORE UPDATE OR DELETE ON billing_purchase
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change()
    """,
    """
    CREATE TRIGGER purchase_is_never_truncated BEFORE TRUNCATE ON billing_purchase
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change()
    """,
    f"""
    CREATE FUNCTION billing_check_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT {ONE_UNIT} THEN
            RAISE EXCEPTION '{UNITS_DIFFER}' USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.pending_id IS NOT NULL AND NOT {FITS_ITS_HOLD} THEN
            RAISE EXCEPTION '{DOES_NOT_FIT}' USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER transfer_is_lawful BEFORE INSERT ON billing_transfer
    FOR EACH ROW EXECUTE FUNCTION billing_check_transfer()
    """,
    f"""
    CREATE FUNCTION billing_refuse_account_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '{ACCOUNT_STAYS}' USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER account_is_never_deleted BEFORE DELETE ON billing_account
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_account_change()
    """,
    """
    CREATE TRIGGER account_keeps_its_identity BEFORE UPDATE OF id, user_id, name, unit ON billing_account
    FOR EACH ROW WHEN ((OLD.id, OLD.user_id, OLD.name, OLD.unit)
                       IS DISTINCT FROM (NEW.id, NEW.user_id, NEW.name, NEW.unit))
    EXECUTE FUNCTION billing_refuse_account_change()
    """,
    "CREATE SEQUENCE billing_receipt_number",
    # Django adds an index for LIKE to every unique text. Nobody searches transfers so, and each costs every reply.
    """
    DO $$ DECLARE name text;
    BEGIN
        FOR name IN SELECT indexname FROM pg_indexes
            WHERE schemaname = current_schema() AND tablename = 'billing_transfer' AND indexname LIKE '%\\_like'
        LOOP EXECUTE format('DROP INDEX %I', name); END LOOP;
    END $$
    """,
]
POSTGRESQL_BACK = [
    "DROP SEQUENCE billing_receipt_number",
    "DROP FUNCTION billing_refuse_change, billing_check_transfer, billing_refuse_account_change CASCADE",
]

SQLITE = [
    f"""
    CREATE TRIGGER transfer_is_never_changed BEFORE UPDATE ON billing_transfer
    BEGIN SELECT RAISE(ABORT, '{NEVER_CHANGED}'); END
    """,
    f"""
    CREATE TRIGGER transfer_is_never_deleted BEFORE DELETE ON billing_transfer
    BEGIN SELECT RAISE(ABORT, '{NEVER_CHANGED}'); END
    """,
    f"""
    CREATE TRIGGER purchase_is_never_changed BEFORE UPDATE ON billing_purchase
    BEGIN SELECT RAISE(ABORT, '{NEVER_CHANGED}'); END
    """,
    f"""
    CREATE TRIGGER purchase_is_never_deleted BEFORE DELETE ON billing_purchase
    BEGIN SELECT RAISE(ABORT, '{NEVER_CHANGED}'); END
    """,
    # INSERT OR REPLACE would delete the old row without a DELETE trigger, hence the check for a twin.
    f"""
    CREATE TRIGGER transfer_is_lawful BEFORE INSERT ON billing_transfer
    BEGIN
        SELECT RAISE(ABORT, '{TWICE}') WHERE EXISTS (SELECT 1 FROM billing_transfer
            WHERE id = NEW.id OR key = NEW.key OR pending_id = NEW.pending_id);
        SELECT RAISE(ABORT, '{UNITS_DIFFER}') WHERE NOT {ONE_UNIT};
        SELECT RAISE(ABORT, '{DOES_NOT_FIT}') WHERE NEW.pending_id IS NOT NULL AND NOT {FITS_ITS_HOLD};
    END
    """,
    f"""
    CREATE TRIGGER account_is_never_deleted BEFORE DELETE ON billing_account
    BEGIN SELECT RAISE(ABORT, '{ACCOUNT_STAYS}'); END
    """,
    f"""
    CREATE TRIGGER account_keeps_its_identity BEFORE UPDATE OF id, user_id, name, unit ON billing_account
    WHEN OLD.id IS NOT NEW.id OR OLD.user_id IS NOT NEW.user_id OR OLD.name IS NOT NEW.name OR OLD.unit IS NOT NEW.unit
    BEGIN SELECT RAISE(ABORT, '{ACCOUNT_STAYS}'); END
    """,
]
SQLITE_BACK = [
    f"DROP TRIGGER {name}"
    for name in (
        "transfer_is_never_changed",
        "transfer_is_never_deleted",
        "purchase_is_never_changed",
        "purchase_is_never_deleted",
        "transfer_is_lawful",
        "account_is_never_deleted",
        "account_keeps_its_identity",
    )
]


def close_books(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    for statement in POSTGRESQL if schema_editor.connection.vendor == "postgresql" else SQLITE:
        schema_editor.execute(statement, params=None)


def reopen_books(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    for statement in POSTGRESQL_BACK if schema_editor.connection.vendor == "postgresql" else SQLITE_BACK:
        schema_editor.execute(statement, params=None)


def open_house(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    accounts = apps.get_model("billing", "Account").objects.using(schema_editor.connection.alias)
    for name, unit in HOUSE.items():
        accounts.get_or_create(user=None, name=name, defaults={"unit": unit})


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]

    operations = [
        migrations.AddIndex(
            "transfer",
            models.Index(
                fields=["expires_at"], condition=models.Q(expires_at__isnull=False), name="transfer_by_expiry"
            ),
        ),
        migrations.RunPython(close_books, reopen_books),
        migrations.RunPython(open_house, migrations.RunPython.noop),
    ]
