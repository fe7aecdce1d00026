//! Decimal numbers of any size, as digits.
//!
//! Owns the one text of a number. Exact: what a double or 64 bits cannot tell apart stays apart.

/// Numbers with more zeros than this are written with an exponent.
const ZEROS_MAX: i32 = 64;

/// A decimal number: digits without leading or trailing zeros, and the power of ten of the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    digits: String,
    power: i32,
}

impl Decimal {
    /// Reads what JSON and PostgreSQL write: `-12`, `10.50`, `.5`, `1e-07`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
            None => (text, 0_i32),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let significant = all.trim_start_matches('0').trim_end_matches('0');
        if significant.is_empty() {
            // There are two zeros, and they are equal.
            return Some(Self {
                negative: false,
                digits: String::new(),
                power: 0,
            });
        }
        let trailing = all.len() - all.trim_end_matches('0').len();
        let power = exponent
            .checked_sub(i32::try_from(fraction.len()).ok()?)?
            .checked_add(i32::try_from(trailing).ok()?)?;
        Some(Self {
            negative,
            digits: significant.to_owned(),
            power,
        })
    }

    /// Whether nothing is behind the point.
    pub(crate) fn is_whole(&self) -> bool {
        self.power >= 0
    }

    /// The one text of this number.
    pub(crate) fn text(&self) -> String {
        if self.digits.is_empty() {
            return "0".to_owned();
        }
        let sign = if self.negative { "-" } else { "" };
        let digits = &self.digits;
        let before_point = self
            .power
            .saturating_add(i32::try_from(digits.len()).unwrap_or(i32::MAX));
        if (0..=ZEROS_MAX).contains(&self.power) {
            format!(
                "{sign}{digits}{}",
                "0".repeat(self.power.unsigned_abs() as usize)
            )
        } else if self.power < 0 && before_point > 0 {
            let (whole, fraction) = digits.split_at(before_point.unsigned_abs() as usize);
            format!("{sign}{whole}.{fraction}")
        } else if (-ZEROS_MAX..=0).contains(&before_point) {
            format!(
                "{sign}0.{}{digits}",
                "0".repeat(before_point.unsigned_abs() as usize)
            )
        } else {
            format!("{sign}{digits}e{}", self.power)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_one_text() {
        for (spellings, text) in [
            (&["0", "-0", "0.00", "0e9"][..], "0"),
            (&["10", "10.0", "1e1", "+10", "010"], "10"),
            (&["-10.50", "-10.5", "-1.05E1"], "-10.5"),
            (&["0.001", ".001", "1e-3", "1.0e-03"], "0.001"),
            (
                &["12345678901234567890.123456789"],
                "12345678901234567890.123456789",
            ),
            (&["1e400", "10e399"], "1e400"),
            (&["1e-400"], "1e-400"),
        ] {
            for spelling in spellings {
                assert_eq!(Decimal::parse(spelling).unwrap().text(), text, "{spelling}");
            }
        }
        for wrong in [
            "",
            "-",
            ".",
            "1e",
            "ten",
            "1.2.3",
            "1e99999999999",
            "0x10",
            "1_000",
            " 1",
        ] {
            assert_eq!(Decimal::parse(wrong), None, "{wrong}");
        }
    }
}
