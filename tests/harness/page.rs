//! Values like a shop's: query results of an exact size, the same for the same key and fill.
//!
//! Owns what the values look like. The recording kept sizes only.

use serde::{Deserialize, Serialize};

/// A query result.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    rows: Vec<Product>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Product {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    handle: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    thumbnail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prices: Vec<Price>,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Price {
    currency_code: String,
    amount: u32,
}

/// Enough words for a catalogue; results of real shops repeat themselves as much.
const WORDS: [&str; 16] = [
    "merino", "wool", "shirt", "linen", "trousers", "canvas", "bag", "oak", "table", "lamp",
    "ceramic", "bowl", "organic", "cotton", "scarf", "jacket",
];

/// From here on a row carries everything a product has.
const FULL_ROW_BYTES: usize = 420;

impl Page {
    /// The result that fill number `fill` stored for query `key`, of exactly `json_bytes` bytes of JSON where that is
    /// possible (an empty result has 11, one row at least 30).
    pub fn new(key: u32, fill: u32, json_bytes: usize) -> Self {
        let mut page = Self { rows: Vec::new() };
        let mut used = page.json_bytes();
        let mut number = 0;
        while used + FULL_ROW_BYTES <= json_bytes {
            let row = Product::full(key, fill, number);
            // A comma between rows.
            used += json_len(&row) + usize::from(number > 0);
            page.rows.push(row);
            number += 1;
        }
        if page.rows.is_empty() && json_bytes > used {
            page.rows.push(Product::bare(key, fill));
        }
        page.pad(json_bytes);
        page
    }

    /// Bytes of JSON.
    pub fn json_bytes(&self) -> usize {
        json_len(self)
    }

    /// Makes up for what rows of a fixed shape leave: the last row's text grows.
    fn pad(&mut self, json_bytes: usize) {
        let missing = json_bytes.saturating_sub(self.json_bytes());
        let Some(last) = self.rows.last_mut() else {
            return;
        };
        if last.description.is_empty() {
            // The field itself takes its share: `,"description":""`.
            const FIELD_BYTES: usize = 17;
            match missing.checked_sub(FIELD_BYTES) {
                Some(1..) => last.description = text(missing - FIELD_BYTES),
                _ => last.id.extend(std::iter::repeat_n('0', missing)),
            }
        } else {
            last.description += &text(missing);
        }
    }
}

impl Product {
    fn bare(key: u32, fill: u32) -> Self {
        Self {
            id: format!("{key:x}x{fill:x}"),
            ..Self::default()
        }
    }

    fn full(key: u32, fill: u32, number: u32) -> Self {
        let word = |shift: u32| WORDS[(key.wrapping_add(number) >> shift) as usize % WORDS.len()];
        let title = format!("{} {} {number}", word(0), word(4));
        let handle = title.replace(' ', "-");
        let price = |currency: &str, amount: u32| Price {
            currency_code: currency.to_owned(),
            amount,
        };
        Self {
            id: format!("prod_{key:08x}{fill:04x}{number:014x}"),
            thumbnail: format!("https://cdn.example/images/{handle}.webp"),
            handle,
            title,
            prices: vec![price("eur", 1_000 + number), price("usd", 1_100 + number)],
            description: text(100),
        }
    }
}

/// So many bytes of words.
fn text(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    let mut words = WORDS.iter().cycle();
    while text.len() < bytes {
        text += words.next().unwrap_or(&"");
        text.push(' ');
    }
    text.truncate(bytes);
    text
}

fn json_len(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn a_page_has_exactly_the_size_asked_for_and_reads_back() {
        for bytes in (30..3_000).chain([11, 100_000, 386_000]) {
            let page = Page::new(12, 3, bytes);
            let json = serde_json::to_vec(&page).expect("a page is JSON");
            assert_eq!(json.len(), bytes);
            assert_eq!(serde_json::from_slice::<Page>(&json).expect("a page"), page);
        }
    }

    #[test]
    fn fills_of_a_query_differ() {
        assert_ne!(Page::new(1, 1, 500), Page::new(1, 2, 500));
        assert_ne!(Page::new(1, 1, 40), Page::new(1, 2, 40));
    }
}
