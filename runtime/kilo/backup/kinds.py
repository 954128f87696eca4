"""The queries of :mod:`kilo.backup.definitions`, one a kind of object.

Each gives an object's name, what defines it, exactly, and an expression that the server deparses, or none.
For PostgreSQL 14 and newer: what only later ones have is read through ``to_jsonb``.
"""

# ruff: noqa: S608  what is put together here are literals of this file
from __future__ import annotations

from typing import LiteralString

_OURS = (
    "{n}.nspname !~ '^pg_' AND {n}.nspname <> 'information_schema' AND NOT EXISTS (SELECT FROM pg_depend e"
    " WHERE e.classid = '{c}'::regclass AND e.objid = {o}.oid AND e.deptype = 'e')"
)


def _ours(catalogue: LiteralString, alias: LiteralString, namespace: LiteralString = "n") -> LiteralString:
    return _OURS.replace("{n}", namespace).replace("{c}", catalogue).replace("{o}", alias)


_OF_CLASS: LiteralString = (
    "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND c.relpersistence <> 't' AND "
    + _ours("pg_class", "c")
)
_NAME_OF = "(pg_identify_object('{c}'::regclass, {o}.oid, 0)).identity"


def _name(catalogue: LiteralString, alias: LiteralString) -> LiteralString:
    return _NAME_OF.replace("{c}", catalogue).replace("{o}", alias)


# Whatever somebody can own or be granted: class, oid, owner, privileges, the letter for acldefault, and the
# word that GRANT and ALTER have for it.
_OWNED: LiteralString = f"""(
  SELECT 'pg_class'::regclass AS class, c.oid, c.relowner AS owner, c.relacl AS acl,
      CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END AS letter,
      CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS word
    FROM {_OF_CLASS} WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL SELECT 'pg_proc'::regclass, p.oid, p.proowner, p.proacl, 'f', 'ROUTINE'
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND {_ours("pg_proc", "p")}
  UNION ALL SELECT 'pg_type'::regclass, t.oid, t.typowner, t.typacl, 'T',
      CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace AND {_ours("pg_type", "t")}
    WHERE t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c'
      AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')
  UNION ALL SELECT 'pg_namespace'::regclass, n.oid, n.nspowner, n.nspacl, 'n', 'SCHEMA'
    FROM pg_namespace n WHERE {_ours("pg_namespace", "n")}
  UNION ALL SELECT 'pg_largeobject'::regclass, l.oid, l.lomowner, l.lomacl, 'L', 'LARGE OBJECT'
    FROM pg_largeobject_metadata l
  UNION ALL SELECT 'pg_foreign_server'::regclass, s.oid, s.srvowner, s.srvacl, 'S', 'FOREIGN SERVER'
    FROM pg_foreign_server s
  UNION ALL SELECT 'pg_publication'::regclass, p.oid, p.pubowner, NULL, NULL, 'PUBLICATION'
    FROM pg_publication p
  UNION ALL SELECT 'pg_event_trigger'::regclass, t.oid, t.evtowner, NULL, NULL, 'EVENT TRIGGER'
    FROM pg_event_trigger t
)"""
# By grantee, "" for PUBLIC, the privileges; with a star those that may be passed on.
_GRANTED = """(SELECT jsonb_object_agg(role, privileges) FROM (
  SELECT CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END AS role, jsonb_agg(
    privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END ORDER BY privilege_type) AS privileges
  FROM aclexplode({acl}) GROUP BY 1) y)"""


def _granted(acl: LiteralString) -> LiteralString:
    return _GRANTED.replace("{acl}", acl)


# What CREATE makes beyond the kinds below. User mappings are for superusers to see alone.
_OTHERS: tuple[LiteralString, ...] = (
    "pg_cast",
    "pg_operator",
    "pg_opclass",
    "pg_opfamily",
    "pg_collation",
    "pg_conversion",
    "pg_language",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_am",
    "pg_transform",
    "pg_ts_config",
    "pg_ts_dict",
    "pg_ts_parser",
    "pg_ts_template",
)


def _listed(*classes: LiteralString) -> LiteralString:
    parts: list[LiteralString] = [
        f"SELECT (pg_identify_object('{name}'::regclass, o.oid, 0)).* FROM {name} o WHERE o.oid >= 16384"
        f" AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{name}'::regclass"
        " AND e.objid = o.oid AND e.deptype = 'e')"
        for name in classes
    ]
    return " UNION ALL ".join(parts)


# An extension that another role has made, the provider of a managed server, is not what somebody put there.
CONTENTS: LiteralString = f"""
SELECT DISTINCT x.type || ' ' || x.identity FROM (
  {_listed(*_OTHERS, "pg_proc", "pg_namespace", "pg_publication", "pg_event_trigger")}
  UNION ALL SELECT (pg_identify_object('pg_class'::regclass, c.oid, 0)).* FROM {_OF_CLASS}
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
  UNION ALL SELECT (pg_identify_object('pg_type'::regclass, t.oid, 0)).*
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace AND {_ours("pg_type", "t")}
    WHERE t.typtype IN ('e', 'd', 'r')
  UNION ALL SELECT 'large object', NULL, NULL, l.oid::text FROM pg_largeobject_metadata l
  UNION ALL SELECT 'extension', NULL, NULL, quote_ident(e.extname) FROM pg_extension e
    WHERE e.oid >= 16384 AND pg_has_role(e.extowner, 'USAGE')
  UNION ALL SELECT 'subscription', NULL, NULL, quote_ident(s.subname) FROM pg_subscription s
    WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
) x WHERE coalesce(x.schema, '') !~ '^pg_' ORDER BY 1 LIMIT 10"""

KINDS: dict[str, LiteralString] = {
    "schemas": f"""
SELECT quote_ident(n.nspname), '', NULL FROM pg_namespace n WHERE {_ours("pg_namespace", "n")}""",
    "extensions": """
SELECT quote_ident(e.extname), quote_ident(n.nspname), NULL
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace""",
    "tables": f"""
SELECT {_name("pg_class", "c")}, jsonb_build_object('kind', c.relkind, 'persistence', c.relpersistence,
  'options', (SELECT jsonb_agg(o ORDER BY o) FROM unnest(c.reloptions) o), 'row security', c.relrowsecurity,
  'forced', c.relforcerowsecurity, 'replica identity', c.relreplident, 'key', pg_get_partkeydef(c.oid),
  'of', c.reloftype::regtype::text, 'parents',
    (SELECT jsonb_agg(i.inhparent::regclass::text ORDER BY i.inhseqno)
    FROM pg_inherits i WHERE i.inhrelid = c.oid))::text, pg_get_expr(c.relpartbound, c.oid)
FROM {_OF_CLASS} WHERE c.relkind IN ('r', 'p', 'f')""",
    "columns": f"""
SELECT format('%s.%I', {_name("pg_class", "c")}, a.attname), jsonb_build_object(
  'type', format_type(a.atttypid, a.atttypmod), 'not null', a.attnotnull, 'identity', a.attidentity,
  'generated', a.attgenerated, 'storage', a.attstorage, 'compression', to_jsonb(a) ->> 'attcompression',
  'statistics', nullif(to_jsonb(a) ->> 'attstattarget', '-1'),
  'options', (SELECT jsonb_agg(o) FROM unnest(a.attoptions) o WHERE o !~ '^pg_'),
  'collation', nullif(a.attcollation, t.typcollation)::regcollation::text)::text, pg_get_expr(d.adbin,
    d.adrelid)
FROM {_OF_CLASS} JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.relkind IN ('r', 'p', 'f', 'c')""",
    # A partition's copies of its parent's are named anew by ATTACH.
    "constraints": f"""
SELECT format('%I on %s', k.conname, coalesce({_name("pg_class", "c")}, {_name("pg_type", "t")})),
  k.convalidated::text, pg_get_constraintdef(k.oid)
FROM pg_constraint k LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
JOIN pg_namespace n ON n.oid = k.connamespace AND {_ours("pg_constraint", "k")}
WHERE k.conparentid = 0 AND k.contype NOT IN ('t', 'n') AND c.relpersistence IS DISTINCT FROM 't'
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.deptype = 'e' AND (e.classid, e.objid) IN
    (('pg_class'::regclass, k.conrelid), ('pg_type'::regclass, k.contypid)))""",
    # pg_dump takes no invalid ones.
    "indexes": f"""
SELECT {_name("pg_class", "i")}, jsonb_build_object('clustered', x.indisclustered,
  'replica identity', x.indisreplident)::text, pg_get_indexdef(i.oid)
FROM {_OF_CLASS} JOIN pg_index x ON x.indrelid = c.oid AND x.indisvalid
  JOIN pg_class i ON i.oid = x.indexrelid""",
    "sequences": f"""
SELECT {_name("pg_class", "c")}, jsonb_build_object('type', s.seqtypid::regtype::text, 'start', s.seqstart,
  'increment', s.seqincrement, 'max', s.seqmax, 'min', s.seqmin, 'cache', s.seqcache, 'cycle', s.seqcycle,
  'owned by', (SELECT (pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid)).identity FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjsubid > 0
      AND d.deptype IN ('a', 'i')))::text, NULL
FROM {_OF_CLASS} JOIN pg_sequence s ON s.seqrelid = c.oid""",
    "views": f"""
SELECT {_name("pg_class", "c")}, jsonb_build_object('kind', c.relkind, 'populated', c.relispopulated,
  'options', (SELECT jsonb_agg(o ORDER BY o) FROM unnest(c.reloptions) o))::text, pg_get_viewdef(c.oid)
FROM {_OF_CLASS} WHERE c.relkind IN ('v', 'm')""",
    "functions": f"""
SELECT {_name("pg_proc", "p")}, jsonb_build_object('kind', p.prokind, 'language', l.lanname, 'source',
  p.prosrc,
  'binary', p.probin, 'definer', p.prosecdef, 'leakproof', p.proleakproof, 'strict', p.proisstrict,
  'set', p.proretset, 'volatility', p.provolatile, 'parallel', p.proparallel, 'cost', p.procost,
  'rows', p.prorows, 'settings', p.proconfig, 'result', pg_get_function_result(p.oid),
  'aggregate', (SELECT to_jsonb(array[g.aggtransfn::text, g.aggfinalfn::text, g.aggcombinefn::text,
    g.aggtranstype::regtype::text, g.agginitval, g.aggsortop::regoper::text]) FROM pg_aggregate g
    WHERE g.aggfnoid = p.oid))::text,
  pg_get_function_arguments(p.oid) || coalesce(pg_get_function_sqlbody(p.oid), '')
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
JOIN pg_namespace n ON n.oid = p.pronamespace AND {_ours("pg_proc", "p")}""",
    "types": f"""
SELECT {_name("pg_type", "t")}, jsonb_build_object('kind', t.typtype, 'labels',
  (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
  'base', format_type(nullif(t.typbasetype, 0), t.typtypmod), 'not null', t.typnotnull,
  'collation', nullif(t.typcollation, 0)::regcollation::text,
  'subtype', (SELECT r.rngsubtype::regtype::text FROM pg_range r WHERE r.rngtypid = t.oid))::text,
    t.typdefault
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace AND {_ours("pg_type", "t")}
LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c'""",
    "triggers": f"""
SELECT format('%I on %s', g.tgname, {_name("pg_class", "c")}), g.tgenabled::text, pg_get_triggerdef(g.oid)
FROM {_OF_CLASS} JOIN pg_trigger g ON g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgparentid = 0""",
    "event triggers": """
SELECT quote_ident(evtname), jsonb_build_object('event', evtevent, 'enabled', evtenabled, 'tags', evttags,
  'function', evtfoid::regproc::text)::text, NULL FROM pg_event_trigger t WHERE NOT EXISTS (SELECT
    FROM pg_depend e
  WHERE e.classid = 'pg_event_trigger'::regclass AND e.objid = t.oid AND e.deptype = 'e')""",
    "rules": f"""
SELECT format('%I on %s', r.rulename, {_name("pg_class", "c")}), r.ev_enabled::text, pg_get_ruledef(r.oid)
FROM {_OF_CLASS} JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename <> '_RETURN'""",
    "policies": f"""
SELECT format('%I on %s', p.polname, {_name("pg_class", "c")}), jsonb_build_object('command', p.polcmd,
  'permissive', p.polpermissive, 'roles', (SELECT jsonb_agg(x ORDER BY x) FROM (SELECT
    CASE r WHEN 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(r)) END AS x
      FROM unnest(p.polroles) r) y))::text,
  coalesce(pg_get_expr(p.polqual, p.polrelid), '') || ' / ' || coalesce(pg_get_expr(p.polwithcheck,
    p.polrelid), '')
FROM {_OF_CLASS} JOIN pg_policy p ON p.polrelid = c.oid""",
    "statistics": f"""
SELECT {_name("pg_statistic_ext", "s")}, '', pg_get_statisticsobjdef(s.oid)
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace AND {_ours("pg_statistic_ext", "s")}""",
    "publications": """
SELECT quote_ident(p.pubname), ((to_jsonb(p) - 'oid' - 'pubowner' - 'pubname') || jsonb_build_object('tables',
  (SELECT jsonb_agg(to_jsonb(t) - 'pubname' ORDER BY t.schemaname, t.tablename)
    FROM pg_publication_tables t WHERE t.pubname = p.pubname)))::text, NULL FROM pg_publication p""",
    "owners": f"""
SELECT o.word || ' ' || (pg_identify_object(o.class, o.oid, 0)).identity, pg_get_userbyid(o.owner), NULL
FROM {_OWNED} o""",
    "grants": f"""
SELECT x.name, x.found::text, NULL FROM (
  SELECT o.word || ' ' || (pg_identify_object(o.class, o.oid, 0)).identity AS name,
    {_granted("o.acl")} AS found, {_granted("acldefault(o.letter, o.owner)")} AS usual
  FROM {_OWNED} o WHERE o.acl IS NOT NULL
  UNION ALL SELECT format('(%I) ON TABLE %s', a.attname, {_name("pg_class", "c")}),
    {_granted("a.attacl")}, NULL
  FROM {_OF_CLASS} JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL AND NOT a.attisdropped
) x WHERE x.found IS DISTINCT FROM x.usual""",
    "default privileges": f"""
SELECT format('%I %s %s', pg_get_userbyid(d.defaclrole), coalesce(quote_ident(n.nspname), '*'),
  d.defaclobjtype),
  coalesce({_granted("d.defaclacl")}::text, ''), NULL
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace""",
    "comments": """
SELECT i.type || ' ' || i.identity, d.description, NULL FROM pg_description d
CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
WHERE d.objoid >= 16384 AND i.identity IS NOT NULL AND i.type <> 'extension'
  AND coalesce(i.schema, '') !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_depend e
    WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e')""",
    "others": f"SELECT x.type || ' ' || x.identity, '', NULL FROM ({_listed(*_OTHERS)}) x",
}
