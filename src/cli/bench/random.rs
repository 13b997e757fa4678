//! Choices and values of a load, the same ones for the same seed. Nothing here is fit for a secret.

use bytes::Bytes;

/// How much more than one value is made, so that values can begin at different places.
const SPREAD: usize = 64 << 10;

/// Numbers that look random: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Choices(u64);

impl Choices {
    /// Begins at `seed`; each `lane` has a sequence of its own.
    #[must_use]
    pub fn new(seed: u64, lane: u64) -> Self {
        let mut mixed = Self(seed ^ lane.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self(mixed.next())
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The high half of a product: even to one part in 2^64 / bound.
        let product = u128::from(self.next()) * u128::try_from(bound).unwrap_or_default();
        usize::try_from(product >> 64).unwrap_or_default()
    }
}

/// Values of one size, cut out of one text, so that making one copies nothing.
#[derive(Debug, Clone)]
pub struct Values {
    text: Bytes,
    size: usize,
}

impl Values {
    /// Makes the text: made-up words in lower case.
    #[must_use]
    pub fn new(size: usize, seed: u64) -> Self {
        let mut choices = Choices::new(seed, u64::MAX);
        let letters = (0..size.saturating_add(SPREAD)).map(|_| letter(choices.next()));
        Self { text: letters.collect::<Vec<_>>().into(), size }
    }

    /// The size of each value.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// One value.
    #[must_use]
    pub fn one(&self, choices: &mut Choices) -> Bytes {
        let at = choices.below(SPREAD.saturating_add(1));
        self.text.slice(at..at.saturating_add(self.size))
    }
}

/// A letter, or a space about every sixth time.
fn letter(number: u64) -> u8 {
    let letters = b"abcdefghijklmnopqrstuvwxyz     ";
    let at = usize::try_from(number % 31).unwrap_or_default();
    letters.get(at).copied().unwrap_or(b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_choices_and_lanes_differ() {
        let draw = |seed, lane| {
            let mut choices = Choices::new(seed, lane);
            [choices.next(), choices.next(), choices.next()]
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn choices_stay_below_their_bound_and_reach_all_of_it() {
        let mut choices = Choices::new(1, 0);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[choices.below(10)] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!(choices.below(0), 0);
    }

    #[test]
    fn values_have_their_size_and_differ() {
        for size in [0, 1, 1024, 100_000] {
            let values = Values::new(size, 3);
            let mut choices = Choices::new(3, 0);
            for _ in 0..100 {
                assert_eq!(values.one(&mut choices).len(), size);
            }
        }
        let values = Values::new(64, 3);
        let mut choices = Choices::new(3, 0);
        assert_ne!(values.one(&mut choices), values.one(&mut choices));
    }
}
