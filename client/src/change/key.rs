//! How the key of a row is written as one text: in events, in tags.

/// The one text of a key of several parts, given the text of each, in the order in which the key is declared. No two
/// keys of as many parts have the same.
///
/// A key of one part is that part, unchanged. Of several, the parts stand between `|`, and `|` and `\` in them are
/// preceded by `\`.
///
/// ```
/// use mcache::change::{ChangeEvent, Operation, key_text};
///
/// assert_eq!(key_text(&["prod_1"]), "prod_1");
/// assert_eq!(key_text(&["a|b", "7"]), r"a\|b|7");
/// let event = ChangeEvent::new("Order", Operation::Updated, [key_text(&["tenant", "7"])]);
/// assert_eq!(event.ids, ["tenant|7"]);
/// ```
pub fn key_text(parts: &[&str]) -> String {
    let mut text = String::new();
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            text.push('|');
        }
        // A key of one part is that part.
        if parts.len() == 1 || !part.contains(['|', '\\']) {
            text.push_str(part);
        } else {
            for c in part.chars() {
                if matches!(c, '|' | '\\') {
                    text.push('\\');
                }
                text.push(c);
            }
        }
    }
    text
}

/// The parts of a key of `count` parts; `None` if the text is not one of such a key. The inverse of [`key_text`].
///
/// ```
/// use mcache::change::key_parts;
///
/// assert_eq!(key_parts(r"a\|b|7", 2).unwrap(), ["a|b", "7"]);
/// assert_eq!(key_parts("a|b", 1).unwrap(), ["a|b"]);
/// assert_eq!(key_parts("7", 2), None);
/// ```
pub fn key_parts(text: &str, count: usize) -> Option<Vec<String>> {
    if count == 1 {
        return Some(vec![text.to_owned()]);
    }
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '|' => {
                parts.push(String::new());
                continue;
            }
            '\\' => chars.next().filter(|c| matches!(c, '|' | '\\'))?,
            c => c,
        };
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    (parts.len() == count).then_some(parts)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Every key of up to three parts of up to three characters, of an alphabet with all that has a meaning.
    #[test]
    fn different_keys_have_different_texts_and_each_text_gives_its_key_back() {
        let alphabet = ['a', '|', '\\'];
        let mut words = vec![String::new()];
        for length in 1..=3 {
            let shorter: Vec<String> = words
                .iter()
                .filter(|word| word.len() == length - 1)
                .cloned()
                .collect();
            let longer = shorter
                .iter()
                .flat_map(|word| alphabet.map(|c| format!("{word}{c}")));
            words.extend(longer);
        }
        let mut seen: [HashMap<String, Vec<&str>>; 3] = Default::default();
        let check = |key: Vec<&'_ str>| {
            let key: Vec<&str> = key;
            let text = key_text(&key);
            assert_eq!(key_parts(&text, key.len()).unwrap(), key, "{text}");
            text
        };
        for a in &words {
            seen[0].insert(check(vec![a]), vec![a]);
            for b in &words {
                let text = check(vec![a, b]);
                assert_eq!(seen[1].insert(text.clone(), vec![a, b]), None, "{text}");
                for c in &words[..13] {
                    let text = check(vec![a, b, c]);
                    assert_eq!(seen[2].insert(text.clone(), vec![a, b, c]), None, "{text}");
                }
            }
        }
        assert_eq!(seen.map(|texts| texts.len()), [40, 1_600, 20_800]);
    }

    #[test]
    fn what_is_no_key_has_no_parts() {
        for text in ["", "a", "a|b|c", r"a\", r"a\b|c", r"a\|b"] {
            assert_eq!(key_parts(text, 2), None, "{text}");
        }
        assert_eq!(key_parts("|", 2).unwrap(), ["", ""]);
    }
}
