//! What a name says of its value: whether it is a secret, and which number it could be.
//!
//! Names are split into words at `_`, `-`, `.`, spaces and changes of case, so that `AWS_SECRET_ACCESS_KEY`, `clientSecret` and
//! `db.password` are all understood. What stands last in a name says what its value is: a `token_url` is no token.

use super::detect::{Hint, Hints};

/// How sure a name makes it that its value is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Secrecy {
    /// A value of some length that looks generated is one: a key, a token.
    Token,
    /// Whatever the value is: a password.
    Password,
}

/// The longest name that is looked at, and the most words of one.
const NAME: usize = 96;
const WORDS: usize = 12;

/// Last words of names whose values only speak of a secret.
const ABOUT: &[&[u8]] = &[
    b"algorithm",
    b"alg",
    b"arn",
    b"at",
    b"attempts",
    b"age",
    b"budget",
    b"class",
    b"column",
    b"confirmation",
    b"count",
    b"counts",
    b"cost",
    b"created",
    b"date",
    b"description",
    b"details",
    b"dir",
    b"directory",
    b"duration",
    b"enabled",
    b"encoding",
    b"endpoint",
    b"env",
    b"error",
    b"exp",
    b"expiration",
    b"expired",
    b"expires",
    b"expiry",
    b"field",
    b"file",
    b"filename",
    b"files",
    b"for",
    b"format",
    b"function",
    b"help",
    b"hint",
    b"host",
    b"id",
    b"ids",
    b"in",
    b"index",
    b"input",
    b"issuer",
    b"label",
    b"len",
    b"length",
    b"lifetime",
    b"limit",
    b"link",
    b"list",
    b"location",
    b"manager",
    b"max",
    b"message",
    b"method",
    b"min",
    b"mode",
    b"name",
    b"names",
    b"needed",
    b"optional",
    b"page",
    b"param",
    b"parameter",
    b"path",
    b"pattern",
    b"placeholder",
    b"policy",
    b"position",
    b"prefix",
    b"prompt",
    b"provider",
    b"ref",
    b"regex",
    b"required",
    b"requirements",
    b"reset",
    b"rotation",
    b"rules",
    b"scheme",
    b"scope",
    b"scopes",
    b"service",
    b"set",
    b"size",
    b"source",
    b"status",
    b"store",
    b"strength",
    b"string",
    b"suffix",
    b"template",
    b"text",
    b"time",
    b"timeout",
    b"title",
    b"ttl",
    b"type",
    b"types",
    b"updated",
    b"uri",
    b"url",
    b"urls",
    b"usage",
    b"used",
    b"user",
    b"username",
    b"validator",
    b"version",
];

/// Words before `token` or `key` that make it something to turn pages or find rows with.
const HARMLESS: &[&[u8]] = &[
    b"cache",
    b"column",
    b"continuation",
    b"cursor",
    b"foreign",
    b"group",
    b"hash",
    b"hot",
    b"index",
    b"lookup",
    b"map",
    b"next",
    b"object",
    b"page",
    b"partition",
    b"primary",
    b"progress",
    b"public",
    b"range",
    b"resume",
    b"row",
    b"sort",
    b"stop",
    b"sync",
    b"unique",
    b"verification",
    b"issue",
    b"item",
    b"json",
    b"dict",
    b"host",
    b"known",
    b"translation",
    b"total",
    b"input",
    b"output",
    b"prompt",
    b"completion",
    b"max",
    b"min",
    b"keyboard",
    b"arrow",
    b"press",
];

/// Words that make a following `key` a secret one without doubt.
const KEYS: &[&[u8]] = &[
    b"access",
    b"account",
    b"admin",
    b"api",
    b"app",
    b"application",
    b"auth",
    b"client",
    b"consumer",
    b"deploy",
    b"developer",
    b"encryption",
    b"insert",
    b"license",
    b"master",
    b"personal",
    b"preshared",
    b"private",
    b"query",
    b"root",
    b"secret",
    b"security",
    b"service",
    b"session",
    b"shared",
    b"signing",
    b"storage",
    b"stream",
    b"unseal",
    b"webhook",
    b"write",
];

/// What a name is: its words in lower case.
struct Words<'a> {
    bytes: &'a [u8],
    ends: [(u8, u8); WORDS],
    count: usize,
}

impl<'a> Words<'a> {
    /// Splits `name`, which is put in lower case into `room`.
    fn of(name: &[u8], room: &'a mut [u8; NAME]) -> Option<Self> {
        if name.is_empty() || name.len() > NAME {
            return None;
        }
        let (mut ends, mut count, mut begin) = ([(0, 0); WORDS], 0, None);
        let mut close = |begin: &mut Option<usize>, end: usize| {
            if let (Some(start), Some(slot)) = (begin.take(), ends.get_mut(count)) {
                *slot = (u8::try_from(start).unwrap_or(0), u8::try_from(end).unwrap_or(0));
                count += 1;
            }
        };
        let mut last = 0_u8;
        for (place, (byte, slot)) in name.iter().zip(room.iter_mut()).enumerate() {
            let next = name.get(place + 1).copied().unwrap_or(0);
            let hump = byte.is_ascii_uppercase()
                && (last.is_ascii_lowercase()
                    || last.is_ascii_digit()
                    || last.is_ascii_uppercase() && next.is_ascii_lowercase());
            if !byte.is_ascii_alphanumeric() || hump {
                close(&mut begin, place);
            }
            if byte.is_ascii_alphanumeric() && begin.is_none() {
                begin = Some(place);
            }
            *slot = byte.to_ascii_lowercase();
            last = *byte;
        }
        close(&mut begin, name.len());
        Some(Self { bytes: room.get(..name.len())?, ends, count })
    }

    fn word(&self, place: usize) -> &'a [u8] {
        let (start, end) = self.ends.get(place).copied().unwrap_or((0, 0));
        self.bytes.get(usize::from(start)..usize::from(end)).unwrap_or(&[])
    }

    /// The word that many from the end; none before the first.
    fn back(&self, place: usize) -> &'a [u8] {
        self.count.checked_sub(place + 1).map_or(&[], |place| self.word(place))
    }

    fn has(&self, any: &[&[u8]]) -> bool {
        (0..self.count).any(|place| any.contains(&self.word(place)))
    }
}

/// What a name says of its value; none: nothing.
pub(super) fn secrecy(name: &[u8]) -> Option<Secrecy> {
    let mut room = [0; NAME];
    let words = Words::of(name, &mut room)?;
    let trailing =
        words.back(0).iter().all(u8::is_ascii_digit) || words.back(0) == b"b64" || words.back(0) == b"base64";
    let last = usize::from(trailing && words.count > 1);
    let (word, before) = (without_number(words.back(last)), words.back(last + 1));
    if ABOUT.contains(&word) {
        return None;
    }
    if is_password(word) || words.has(&[b"password", b"passwd", b"passphrase"]) && !word.ends_with(b"s") {
        return Some(Secrecy::Password);
    }
    match word {
        b"secret" => Some(Secrecy::Password),
        b"token" | b"key" if HARMLESS.contains(&before) => None,
        b"key" | b"keys" if KEYS.contains(&before) => Some(Secrecy::Token),
        b"key" if words.has(&[b"secret", b"private"]) => Some(Secrecy::Token),
        b"key" if words.count > last + 1 => Some(Secrecy::Token),
        b"token" | b"jwt" | b"authorization" | b"authorisation" | b"cookie" | b"credential"
        | b"credentials" | b"apikey" | b"accesskey" | b"secretkey" | b"privatekey" | b"authtoken"
        | b"accesstoken" | b"refreshtoken" | b"bearer" | b"sessiontoken" | b"otp" | b"sharedkey"
        | b"accountkey" | b"masterkey" | b"sid" | b"login" | b"pat" => Some(Secrecy::Token),
        _ if is_joined(word) => Some(Secrecy::Token),
        _ if words.has(&[b"secret", b"apikey"]) && !word.ends_with(b"s") => Some(Secrecy::Token),
        _ => None,
    }
}

fn without_number(word: &[u8]) -> &[u8] {
    let digits = word.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    word.get(..word.len() - digits).filter(|rest| !rest.is_empty()).unwrap_or(word)
}

fn is_password(word: &[u8]) -> bool {
    matches!(
        word,
        b"password"
            | b"passwd"
            | b"pwd"
            | b"passphrase"
            | b"passcode"
            | b"pass"
            | b"pw"
            | b"passwort"
            | b"pin"
            | b"cvv"
            | b"cvc"
            | b"pword"
    ) || word.len() > 8 && (word.ends_with(b"password") || word.ends_with(b"passwd"))
}

/// Several words written as one.
fn is_joined(word: &[u8]) -> bool {
    let tails: [&[u8]; 6] = [b"secret", b"token", b"apikey", b"accesskey", b"secretkey", b"privatekey"];
    tails.iter().any(|tail| word.len() > tail.len() && word.ends_with(tail))
}

/// Which number a value under this name could be.
pub(super) fn hints(name: &[u8]) -> Hints {
    let mut room = [0; NAME];
    let mut hints = Hints::default();
    let Some(words) = Words::of(name, &mut room) else { return hints };
    for place in 0..words.count {
        if let Some(hint) = hint(words.word(place)) {
            hints = hints.with(hint);
        }
    }
    hints
}

/// The number that a word speaks of.
fn hint(word: &[u8]) -> Option<Hint> {
    Some(match word {
        b"phone" | b"phones" | b"telephone" | b"tel" | b"mobile" | b"fax" | b"cell" | b"msisdn"
        | b"whatsapp" => Hint::Phone,
        b"ssn" | b"social" | b"itin" | b"taxpayer" => Hint::Ssn,
        b"card" | b"pan" | b"credit" | b"debit" => Hint::Card,
        b"version" | b"release" | b"build" => Hint::Version,
        b"routing" | b"aba" | b"rtn" => Hint::Routing,
        b"cpf" => Hint::Cpf,
        b"nhs" => Hint::Nhs,
        b"aadhaar" | b"aadhar" | b"uidai" => Hint::Aadhaar,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_however_they_are_written() {
        for name in [
            "password",
            "DB_PASSWORD",
            "dbPassword",
            "db.passwd",
            "user-pwd",
            "FromEmailPassword",
            "clientSecret",
            "PASSWORD2",
            "jenkins_passwd",
        ] {
            assert_eq!(secrecy(name.as_bytes()), Some(Secrecy::Password), "{name}");
        }
        for name in [
            "token",
            "apiKey",
            "API_KEY",
            "apikey",
            "AWS_SECRET_ACCESS_KEY",
            "access_token",
            "X-Api-Key",
            "privateKey",
            "Authorization",
            "refreshToken",
            "PRIVATE_KEY_B64",
            "HEROKU_API_KEY",
        ] {
            assert_eq!(secrecy(name.as_bytes()), Some(Secrecy::Token), "{name}");
        }
    }

    #[test]
    fn names_that_only_speak_of_secrets_are_none() {
        for name in [
            "token_url",
            "password_file",
            "max_tokens",
            "next_page_token",
            "secret_name",
            "tokenType",
            "primaryKey",
            "key",
            "keyboard",
            "passenger",
            "author",
            "total_tokens",
            "publicKey",
            "passwordPolicy",
            "SECRETS",
            "",
        ] {
            assert_eq!(secrecy(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_name_hints_at_a_number() {
        assert_eq!(hints(b"home_phone"), Hints::default().with(Hint::Phone));
        assert_eq!(hints(b"patientSSN"), Hints::default().with(Hint::Ssn));
        assert_eq!(hints(b"microphone"), Hints::default());
    }
}
