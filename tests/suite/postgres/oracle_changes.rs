//! The changes that the oracle makes: statements, and what no trigger sees.

use harness::Seed;

use super::oracle::{IDS, MOODS, POSTS, RANKS, SCORES, pick, uuid};
use super::oracle_keys;

/// One change, by a statement or by what no trigger sees.
pub fn statement(seed: &mut Seed) -> String {
    let id = pick(seed, &IDS);
    let other = pick(seed, &IDS);
    let mood = pick(seed, &MOODS);
    let rank = pick(seed, &RANKS);
    let score = pick(seed, &SCORES);
    let word = pick(seed, &["Ähre", "zebra", "Apfel", "aaa"]);
    let uuid = uuid(seed.u64(..POSTS));
    let token = pick(seed, &["\\x00ff", "\\x01"]);
    if seed.chance(35) {
        return oracle_keys::statement(seed);
    }
    match seed.u64(..100) {
        0..=17 => format!(
            "INSERT INTO author VALUES ({id}, '{word}', '{mood}', {score}, '{token}', now()) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        ),
        18..=37 => format!(
            "INSERT INTO post VALUES ('{uuid}', {id}, '{word}', {rank}, '{{\"n\": {rank}}}', '{token}') ON CONFLICT (id) DO UPDATE SET author_id = excluded.author_id, token = excluded.token"
        ),
        38..=45 => format!("UPDATE author SET score = {score} WHERE id = {id}"),
        46..=53 => format!("UPDATE author SET mood = '{mood}' WHERE id = {id}"),
        54..=60 => format!("UPDATE post SET rank = {rank}, token = '{token}' WHERE id = '{uuid}'"),
        61..=66 => format!("UPDATE post SET doc = '{{\"n\": {rank}1}}' WHERE author_id = {other}"),
        67..=72 => format!("UPDATE post SET title = title || 'x' WHERE author_id = {other} AND length(title) < 20"),
        73..=77 => format!("DELETE FROM post WHERE id = '{uuid}'"),
        78..=80 => format!("DELETE FROM author WHERE id = {id}"),
        81..=84 => format!("UPDATE author SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END WHERE id = {id}"),
        85..=87 => format!("UPDATE author SET seen_at = now(), token = '{token}' WHERE id = {id}"),
        88..=89 => format!("BEGIN; UPDATE author SET name = 'never' WHERE id = {id}; ROLLBACK"),
        90 => "TRUNCATE post".to_owned(),
        91..=92 => "ALTER TABLE post ALTER COLUMN title TYPE text USING upper(title)".to_owned(),
        93 => "ALTER TABLE author DISABLE TRIGGER USER; UPDATE author SET name = name || '!' WHERE length(name) < 20; ALTER TABLE author ENABLE TRIGGER USER".to_owned(),
        94..=95 => "CREATE TABLE swap (LIKE post INCLUDING ALL); INSERT INTO swap SELECT * FROM post WHERE rank > 4;
             DROP TABLE post; ALTER TABLE swap RENAME TO post".to_owned(),
        _ => format!("UPDATE author SET id = {other} WHERE id = {id} AND NOT EXISTS (SELECT FROM author WHERE id = {other})"),
    }
}
