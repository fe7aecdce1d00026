//! What no trigger sees: a look at the catalogue.
//!
//! Owns the SQL of the look and of the event trigger that takes one at once. It must not run anything.
//!
//! Data can change without a statement that fires a trigger: a table is renamed over another, a partition is attached
//! or detached, a column is rewritten, a label of an enumeration is renamed, a policy is replaced, triggers are
//! switched off and on. All of these write to the catalogue. (A crash that empties an unlogged table does not; it
//! empties one of ours as well.) So a look makes a fingerprint of what the catalogue says of each captured table, and
//! where it differs from the last one the whole table has changed. Rows of the catalogue are recognised by `xmin`, the
//! transaction that wrote them, which also tells that something was changed and changed back.
//!
//! A table that is not fully captured (a new partition, a disabled trigger) counts as changed at every look until
//! `install` has repaired it: nothing is stale longer than the interval between two looks.

use super::layout::Layout;
use super::sql::{dollar_quoted, identifier, literal, shortened};

/// What a database begins with has smaller numbers than what is made in it.
const FIRST_OID: u32 = 16_384;

/// Commands after which the event trigger looks: those that change tables, and those that may take away triggers,
/// columns and partitions together with what they depend on.
pub(super) const COMMANDS: [&str; 23] = [
    "ALTER TABLE",
    "ALTER TYPE",
    "ALTER TRIGGER",
    "ALTER POLICY",
    "ALTER SCHEMA",
    "CREATE SCHEMA",
    "CREATE TABLE",
    "CREATE TABLE AS",
    "CREATE TRIGGER",
    "CREATE POLICY",
    "DROP TABLE",
    "DROP TRIGGER",
    "DROP POLICY",
    "DROP TYPE",
    "DROP SCHEMA",
    "DROP COLLATION",
    "DROP DOMAIN",
    "DROP EXTENSION",
    "DROP FUNCTION",
    "DROP LANGUAGE",
    "DROP OPERATOR",
    "DROP OWNED",
    "DROP ROUTINE",
];

/// While this is on, the event trigger leaves the look to the session that set it.
pub(super) const INSTALLING: &str = "mcache.installing";

impl Layout<'_> {
    /// Makes the functions that look, or replaces them.
    pub(super) fn look_functions(&self) -> String {
        [self.fingerprint(), self.look(), self.on_ddl()].join("\n")
    }

    /// The name of the event trigger.
    pub(super) fn event_trigger(&self) -> String {
        shortened(&format!("{}_on_ddl", self.schema))
    }

    /// Makes the event trigger. Only a superuser may, or who a provider lets.
    pub(super) fn create_event_trigger(&self) -> String {
        let commands: Vec<String> = COMMANDS.iter().map(|command| literal(command)).collect();
        let name = identifier(&self.event_trigger());
        format!(
            "DROP EVENT TRIGGER IF EXISTS {name};
             CREATE EVENT TRIGGER {name} ON ddl_command_end WHEN TAG IN ({}) EXECUTE FUNCTION {}.on_ddl();
             ALTER EVENT TRIGGER {name} ENABLE ALWAYS;",
            commands.join(", "),
            identifier(self.schema),
        )
    }

    /// What the catalogue says of a table, its partitions and children, the tables it is a part of and the types of its
    /// columns; and whether every statement that changes it fires a trigger.
    fn fingerprint(&self) -> String {
        let schema = identifier(self.schema);
        let body = format!(
            "
DECLARE
  root oid := to_regclass(of_relation);
  known record;
  wanted text[];
  tables oid[];
  above oid[];
  types oid[];
  composites oid[];
BEGIN
  SELECT c.* INTO known FROM {schema}.capture AS c WHERE c.relation = of_relation;
  wanted := known.physical;
  WITH RECURSIVE tree (oid) AS (
    SELECT root UNION SELECT i.inhrelid FROM pg_inherits AS i JOIN tree ON i.inhparent = tree.oid)
  SELECT array_agg(oid ORDER BY oid) INTO tables FROM tree;
  WITH RECURSIVE parents (oid) AS (
    SELECT inhparent FROM pg_inherits WHERE inhrelid = root
    UNION SELECT i.inhparent FROM pg_inherits AS i JOIN parents ON i.inhrelid = parents.oid)
  SELECT coalesce(array_agg(oid ORDER BY oid), '{{}}') INTO above FROM parents;
  -- What values of the columns are made of: domains, arrays, composite types and ranges have types within. Those that
  -- every database has do not change.
  WITH RECURSIVE within (oid) AS (
    SELECT atttypid FROM pg_attribute
    WHERE attrelid = ANY (tables) AND attname = ANY (wanted) AND atttypid >= {FIRST_OID}
    UNION SELECT inner_type FROM within JOIN pg_type AS t USING (oid), LATERAL (
      SELECT t.typbasetype UNION ALL SELECT t.typelem
      UNION ALL SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0
      UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) AS i (inner_type)
    WHERE inner_type >= {FIRST_OID})
  SELECT array_agg(oid), array_agg(typrelid) FILTER (WHERE typrelid <> 0) INTO types, composites
  FROM within JOIN pg_type USING (oid);
  SELECT md5(concat_ws(' ', root::text,
    (SELECT string_agg(concat_ws('/', inhrelid, inhparent, inhdetachpending, xmin), ' ' ORDER BY inhrelid, inhparent)
     FROM pg_inherits
     WHERE inhrelid = ANY (tables || above) AND inhparent = ANY (tables || above)),
    (SELECT string_agg(concat_ws('/', oid, relkind, relpersistence, relrowsecurity, relforcerowsecurity,
                                 CASE WHEN relrowsecurity THEN relowner END), ' ' ORDER BY oid)
     FROM pg_class WHERE oid = ANY (tables)),
    -- A crash empties unlogged tables, and this one.
    (SELECT a.since FROM {schema}.alive AS a
     WHERE EXISTS (SELECT FROM pg_class WHERE oid = ANY (tables) AND relpersistence = 'u')),
    (SELECT string_agg(concat_ws('/', attrelid, attnum, attname, atttypid, atttypmod, attcollation, xmin), ' '
                       ORDER BY attrelid, attnum)
     FROM pg_attribute WHERE attrelid = ANY (tables) AND attname = ANY (wanted)),
    (SELECT string_agg(concat_ws('/', e.oid, e.enumlabel, e.enumsortorder, e.xmin), ' ' ORDER BY e.oid)
     FROM pg_enum AS e WHERE e.enumtypid = ANY (types)),
    (SELECT string_agg(concat_ws('/', attrelid, attnum, xmin), ' ' ORDER BY attrelid, attnum)
     FROM pg_attribute WHERE attrelid = ANY (composites) AND attnum > 0),
    (SELECT string_agg(concat_ws('/', oid, xmin), ' ' ORDER BY oid) FROM pg_policy WHERE polrelid = ANY (tables)),
    (SELECT string_agg(concat_ws('/', t.tgrelid, t.oid, t.tgenabled, t.xmin), ' ' ORDER BY t.oid)
     FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
     WHERE t.tgrelid = ANY (tables || above) AND p.pronamespace = {namespace}::regnamespace AND NOT t.tgisinternal)))
  INTO fingerprint;
  captured := root IS NOT NULL AND NOT EXISTS (
    SELECT FROM unnest(tables || above) AS part (oid)
    WHERE 4 <> (SELECT count(*) FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
                WHERE t.tgrelid = part.oid AND p.pronamespace = {namespace}::regnamespace AND NOT t.tgisinternal
                  AND t.tgenabled = 'A' AND p.proname = known.function
                  AND (t.tgnargs > 0) = (part.oid = ANY (above))))
    -- A virtual column is computed when it is read: no trigger sees it.
    AND NOT EXISTS (SELECT FROM pg_attribute
                    WHERE attrelid = ANY (tables) AND attname = ANY (wanted) AND attgenerated = 'v')
    -- Rows that logical replication applies fire no trigger of a statement.
    AND NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = ANY (tables || above));
END
",
            namespace = literal(&schema),
        );
        format!(
            "CREATE OR REPLACE FUNCTION {schema}.fingerprint(
               of_relation text, OUT fingerprint text, OUT captured boolean) LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS {};",
            dollar_quoted(&format!("\n#variable_conflict use_column{body}")),
        )
    }

    /// Compares each captured table with what was last seen of it; says what differs and what is not fully captured.
    /// Nothing is locked but what differs.
    fn look(&self) -> String {
        let schema = identifier(self.schema);
        // A table whose row is locked is being looked at by another, or changed by a transaction that has looked
        // itself.
        let body = format!(
            "
DECLARE
  wanted text;
  was record;
  is_now record;
BEGIN
  INSERT INTO {schema}.alive DEFAULT VALUES ON CONFLICT DO NOTHING;
  FOR wanted IN SELECT DISTINCT i.relation FROM {schema}.interest AS i JOIN {schema}.consumer AS c ON c.id = i.consumer
                WHERE c.expired_at IS NULL ORDER BY 1 LOOP
    IF NOT EXISTS (SELECT FROM {schema}.seen AS s WHERE s.relation = wanted) THEN
      INSERT INTO {schema}.seen SELECT wanted, f.fingerprint, f.captured FROM {schema}.fingerprint(wanted) AS f
        ON CONFLICT DO NOTHING;
    END IF;
    SELECT s.* INTO was FROM {schema}.seen AS s WHERE s.relation = wanted;
    SELECT * INTO is_now FROM {schema}.fingerprint(wanted);
    IF was.fingerprint <> is_now.fingerprint OR was.captured <> is_now.captured THEN
      SELECT s.* INTO was FROM {schema}.seen AS s WHERE s.relation = wanted FOR UPDATE SKIP LOCKED;
      CONTINUE WHEN NOT FOUND AND is_now.captured;
      -- Read after the lock was taken, so that it is never older than what the last holder of the lock wrote.
      SELECT * INTO is_now FROM {schema}.fingerprint(wanted);
    END IF;
    IF NOT is_now.captured OR was.fingerprint <> is_now.fingerprint THEN
      INSERT INTO {schema}.outbox (relation, operation) VALUES (wanted, 'everything');
      PERFORM {schema}.wake(wanted);
      RETURN QUERY SELECT wanted, is_now.captured;
    END IF;
    IF was.fingerprint <> is_now.fingerprint OR was.captured <> is_now.captured THEN
      UPDATE {schema}.seen SET fingerprint = is_now.fingerprint, captured = is_now.captured WHERE relation = wanted;
    END IF;
  END LOOP;
END
"
        );
        self.function("look", "", "TABLE (changed text, complete boolean)", &body)
    }

    /// Looks after a command that may concern a captured table. It never fails the command, nor waits: a table that
    /// another looks at meanwhile, who cannot see this command yet, counts as changed.
    fn on_ddl(&self) -> String {
        let schema = identifier(self.schema);
        let body = format!(
            "
DECLARE
  concerned text;
  is_free boolean := false;
BEGIN
  IF coalesce(current_setting('{INSTALLING}', true), '') = 'on' THEN
    RETURN;
  END IF;
  -- Temporary tables are made by the thousand, and a new table concerns another only as its child.
  IF TG_TAG IN ('CREATE TABLE', 'CREATE TABLE AS') AND NOT EXISTS (
       SELECT FROM pg_event_trigger_ddl_commands() AS c JOIN pg_inherits AS i ON i.inhrelid = c.objid) THEN
    RETURN;
  END IF;
  -- Most commands concern tables of others: they lock nothing.
  FOR concerned IN SELECT s.relation FROM {schema}.seen AS s
                   WHERE s.fingerprint <> (SELECT f.fingerprint FROM {schema}.fingerprint(s.relation) AS f) LOOP
    PERFORM FROM {schema}.seen AS s WHERE s.relation = concerned FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
      is_free := true;
    ELSE
      INSERT INTO {schema}.outbox (relation, operation) VALUES (concerned, 'everything');
      PERFORM {schema}.wake(concerned);
    END IF;
  END LOOP;
  IF is_free THEN
    PERFORM {schema}.look();
  END IF;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'mcache could not look at the catalogue: %', SQLERRM;
END
"
        );
        self.function("on_ddl", "", "event_trigger", &body)
    }
}
