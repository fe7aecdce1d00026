//! Commands as one line of text, quoted as `redis-cli` quotes.
//!
//! Owns splitting and quoting; binary-safe both ways. It must not know any command.

/// Splits a line into arguments: at white space; `"..."` may hold spaces and the escapes `\\ \" \n \r \t \xHH`.
///
/// # Panics
///
/// When a quote is not closed or an escape is not known: the line is the test's own.
pub fn split(line: &str) -> Vec<Vec<u8>> {
    let mut arguments = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (argument, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)
                .unwrap_or_else(|| panic!("a quote that does not end or an odd escape: {line}")),
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest.as_bytes()[..end].to_vec(), &rest[end..])
            }
        };
        arguments.push(argument);
        rest = after.trim_start();
    }
    arguments
}

/// Reads up to the closing quote; gives the bytes and what follows.
fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut bytes = Vec::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((bytes, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => bytes.push(b'\n'),
                'r' => bytes.push(b'\r'),
                't' => bytes.push(b'\t'),
                'x' => {
                    let digits = text.get(at + 2..at + 4)?;
                    bytes.push(u8::from_str_radix(digits, 16).ok()?);
                    chars.nth(1)?;
                }
                plain @ ('\\' | '"') => bytes.push(plain as u8),
                _ => return None,
            },
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

/// Joins arguments into the line that [`split`] takes apart again.
pub fn join<A: AsRef<[u8]>>(arguments: &[A]) -> String {
    arguments
        .iter()
        .map(|argument| quote(argument.as_ref()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quote(bytes: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_graphic() && *b != b'"' && *b != b'\\';
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut quoted = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', byte as char]),
            b'\n' => quoted.push_str("\\n"),
            b'\r' => quoted.push_str("\\r"),
            b'\t' => quoted.push_str("\\t"),
            b' '..=b'~' => quoted.push(byte as char),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::{join, split};

    #[test]
    fn a_line_comes_apart_at_white_space_and_keeps_what_is_quoted() {
        assert_eq!(
            split(r#"SET  "a b" "\x00\xff\"\\" "" plain"#),
            [&b"SET"[..], b"a b", b"\x00\xff\"\\", b"", b"plain"]
        );
    }

    #[test]
    fn joining_and_splitting_are_inverse() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let arguments = [every_byte, b"x".to_vec(), Vec::new(), b"two words".to_vec()];
        assert_eq!(split(&join(&arguments)), arguments);
    }
}
