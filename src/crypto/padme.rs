//! Padmé: padding that hides all but the magnitude of a length.
//!
//! Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", PETS 2019,
//! algorithm 1. A length L leaks O(log log L) bits and grows by at most 12 %.

/// The padded length of `len` bytes: at least `len`, at most 12 % more.
#[must_use]
pub const fn padded_len(len: usize) -> usize {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let kept = exponent.ilog2() + 1;
    if exponent < kept {
        return len;
    }
    let mask = (1_usize << (exponent - kept)) - 1;
    len.saturating_add(mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::padded_len;

    #[test]
    fn padding_costs_at_most_twelve_percent_and_is_idempotent() {
        for len in (0..70_000).chain([1 << 20, (1 << 20) + 1, 4_194_305, 16_777_215]) {
            let padded = padded_len(len);
            assert!(padded >= len && (padded - len) * 100 <= len * 12, "{len} → {padded}");
            assert_eq!(padded_len(padded), padded, "{len}");
        }
    }

    #[test]
    fn padding_matches_the_paper() {
        for (len, padded) in [(0, 0), (1, 1), (8, 8), (9, 10), (100, 104), (1000, 1024), (10_000, 10_240)] {
            assert_eq!(padded_len(len), padded, "{len}");
        }
    }
}
