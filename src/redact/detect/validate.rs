//! Check digits and ranges of published number formats. Each takes digits as values from 0 to 9.

/// ISO/IEC 7812: the sum with every second digit from the right doubled is a multiple of ten.
pub(in crate::redact) fn luhn(digits: &[u8]) -> bool {
    let sum = digits.iter().rev().enumerate().fold(0_u32, |sum, (place, digit)| {
        let doubled = u32::from(*digit) << (place % 2);
        sum + if doubled > 9 { doubled - 9 } else { doubled }
    });
    sum.is_multiple_of(10)
}

/// Lengths that the issuer's prefix allows; none for a prefix that no network uses.
pub(in crate::redact) fn card_lengths(digits: &[u8]) -> &'static [usize] {
    let leading = |count: usize| digits.iter().take(count).fold(0_u32, |n, d| n * 10 + u32::from(*d));
    let (two, three, four, six) = (leading(2), leading(3), leading(4), leading(6));
    match () {
        () if two == 34 || two == 37 => &[15],
        () if two == 36 || two == 38 || two == 39 || (300..=305).contains(&three) || three == 309 => {
            &[14, 16, 19]
        }
        () if (3528..=3589).contains(&four) => &[16, 17, 18, 19],
        () if two == 35 => &[16],
        () if four == 1800 || four == 2131 => &[15],
        () if (2200..=2204).contains(&four) => &[16, 17, 18, 19],
        () if (2221..=2720).contains(&four) || (51..=55).contains(&two) => &[16],
        () if two == 50 || (56..=58).contains(&two) || four == 604 || (604..=606).contains(&(four / 10)) => {
            &[12, 13, 14, 15, 16, 17, 18, 19]
        }
        () if four == 6011 || two == 65 || (644..=649).contains(&three) => &[16, 17, 18, 19],
        () if (622_126..=622_925).contains(&six) => &[16, 17, 18, 19],
        () if two == 60 || two == 61 || two == 62 || two == 63 || two == 64 => {
            &[12, 13, 14, 15, 16, 17, 18, 19]
        }
        () if (66..=69).contains(&two) => &[12, 13, 14, 15, 16, 17, 18, 19],
        () if four / 10 == 60 => &[12],
        () if two / 10 == 4 => &[13, 16, 19],
        () if two == 81 || two == 82 => &[16, 17, 18, 19],
        () => &[],
    }
}

/// Whether the digits are a payment card's number: issuer, length, check digit, and not one digit repeated.
pub(in crate::redact) fn card(digits: &[u8]) -> bool {
    let repeated = digits.iter().all(|digit| Some(digit) == digits.first());
    let maestro_with_zeros = digits.len() == 12 && digits.starts_with(&[0, 6, 0, 4]);
    !repeated && (card_lengths(digits).contains(&digits.len()) || maestro_with_zeros) && luhn(digits)
}

/// Whether the parts are a social security number that may have been issued: no area 000, 666 or 900 and above.
pub(in crate::redact) fn ssn(area: u32, group: u32, serial: u32) -> bool {
    area != 0 && area != 666 && area < 900 && group != 0 && serial != 0
}

/// Whether the parts are an individual taxpayer identification number of the US.
pub(in crate::redact) fn itin(area: u32, group: u32) -> bool {
    area >= 900 && matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99)
}

/// Lengths of IBANs by country, from the registry of ISO 13616.
const IBAN_LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// The length of an IBAN of a country, whose code is in upper case.
pub(in crate::redact) fn iban_length(country: [u8; 2]) -> Option<usize> {
    IBAN_LENGTHS.iter().find(|(code, _)| **code == country).map(|(_, length)| *length)
}

/// ISO 7064 mod 97-10 over an IBAN without spaces.
pub(in crate::redact) fn iban(letters: &[u8]) -> bool {
    let rotated = letters.iter().skip(4).chain(letters.iter().take(4));
    let remainder = rotated.fold(0_u32, |sum, letter| match letter.to_ascii_uppercase() {
        digit @ b'0'..=b'9' => (sum * 10 + u32::from(digit - b'0')) % 97,
        letter @ b'A'..=b'Z' => (sum * 100 + u32::from(letter - b'A') + 10) % 97,
        _ => 0,
    });
    remainder == 1
}

/// The check digit of a Brazilian CPF, eleven digits.
pub(in crate::redact) fn cpf(digits: &[u8]) -> bool {
    let check = |count: usize| {
        let weights = (2..=u32::try_from(count).unwrap_or(0) + 1).rev();
        let sum: u32 = digits.iter().take(count).zip(weights).map(|(d, w)| u32::from(*d) * w).sum();
        u8::try_from(sum * 10 % 11 % 10).unwrap_or(u8::MAX)
    };
    let repeated = digits.iter().all(|digit| Some(digit) == digits.first());
    digits.len() == 11 && !repeated && digits.get(9) == Some(&check(9)) && digits.get(10) == Some(&check(10))
}

/// The check digit of an NHS number, ten digits.
pub(in crate::redact) fn nhs(digits: &[u8]) -> bool {
    let sum: u32 = digits.iter().take(9).zip((2..=10).rev()).map(|(d, w)| u32::from(*d) * w).sum();
    let check = (11 - sum % 11) % 11;
    digits.len() == 10 && check != 10 && digits.get(9).is_some_and(|digit| u32::from(*digit) == check)
}

/// The check digit of an ABA routing number, nine digits with the prefix of a district.
pub(in crate::redact) fn aba(digits: &[u8]) -> bool {
    let sum: u32 = digits.iter().zip([3, 7, 1, 3, 7, 1, 3, 7, 1]).map(|(d, w)| u32::from(*d) * w).sum();
    let district = digits.iter().take(2).fold(0, |n, d| n * 10 + u32::from(*d));
    digits.len() == 9 && sum.is_multiple_of(10) && matches!(district, 1..=12 | 21..=32 | 61..=72 | 80)
}

/// Verhoeff's check digit, as Aadhaar numbers have it: twelve digits that do not begin with 0 or 1.
pub(in crate::redact) fn aadhaar(digits: &[u8]) -> bool {
    // The dihedral group of order ten: 0..5 rotations, 5..10 reflections.
    let multiply = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => (a + b - 5) % 5 + 5,
        (false, true) => (a + 5 - b) % 5 + 5,
        (false, false) => (a + 5 - b) % 5,
    };
    const PERMUTATION: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let permute = |digit: u8, times: usize| {
        (0..times % 8).fold(digit, |d, _| PERMUTATION.get(usize::from(d)).copied().unwrap_or(0))
    };
    let check =
        digits.iter().rev().enumerate().fold(0, |sum, (place, digit)| multiply(sum, permute(*digit, place)));
    digits.len() == 12 && digits.first().is_some_and(|first| *first > 1) && check == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').collect()
    }

    /// Whether exactly one last digit of ten is taken.
    fn only_one_check_digit(text: &str, check: impl Fn(&[u8]) -> bool) -> bool {
        let mut all = digits(text);
        let taken = (0..10).filter(|last| {
            *all.last_mut().unwrap() = *last;
            check(&all)
        });
        taken.count() == 1 && check(&digits(text))
    }

    #[test]
    fn published_numbers_pass_and_another_check_digit_fails() {
        assert!(only_one_check_digit("4111111111111111", card));
        assert!(only_one_check_digit("378282246310005", card));
        assert!(only_one_check_digit("6304000000000000", card));
        assert!(only_one_check_digit("529.982.247-25", cpf));
        assert!(only_one_check_digit("943 476 5919", nhs));
        assert!(only_one_check_digit("011000015", aba));
        assert!(only_one_check_digit("2341 2341 2346", aadhaar));
    }

    #[test]
    fn ibans_have_their_country_s_length_and_remainder() {
        for good in ["GB82WEST12345698765432", "DE89370400440532013000", "NO9386011117947"] {
            assert!(iban(good.as_bytes()), "{good}");
            let country = good.as_bytes()[..2].try_into().unwrap();
            assert_eq!(iban_length(country), Some(good.len()));
        }
        assert!(!iban(b"GB82WEST12345698765433"));
        assert_eq!(iban_length(*b"ZZ"), None);
    }

    #[test]
    fn numbers_that_were_never_issued_fail() {
        assert!(ssn(219, 9, 9999) && !ssn(0, 1, 1) && !ssn(666, 1, 1) && !ssn(900, 1, 1) && !ssn(1, 0, 1));
        assert!(itin(912, 70) && !itin(912, 66) && !itin(812, 70));
        assert!(!card(&digits("0000000000000000")) && !card(&digits("9111111111111111")));
    }
}
