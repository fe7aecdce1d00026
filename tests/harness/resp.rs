//! Commands as they stand on the wire.

use std::io::{self, BufRead};

/// The words of the next command: an array of strings with their lengths.
///
/// # Errors
///
/// When the other side has ended, or sends something else.
pub fn read_command(from: &mut impl BufRead) -> io::Result<Vec<Vec<u8>>> {
    let count = length(from, '*')?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = length(from, '$')?;
        let mut word = vec![0; length + 2];
        from.read_exact(&mut word)?;
        word.truncate(length);
        words.push(word);
    }
    Ok(words)
}

fn length(from: &mut impl BufRead, sigil: char) -> io::Result<usize> {
    let mut header = String::new();
    if from.read_line(&mut header)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let digits = header.trim_end().strip_prefix(sigil);
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| io::Error::other(format!("expected {sigil}<length>, got {header}")))
}
