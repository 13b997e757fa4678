//! Where the profile comes from, and what is refused about it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::command::{prepared, run, strongroom};

const PLACEHOLDER: &str = "endpoint = \"https://127.0.0.1:1\"\nadmin_endpoint = \"https://127.0.0.1:1\"\n\
                           ca_file = \"ca.pem\"\nserver_name = \"localhost\"\ntoken_file = \"app.token\"\ntenant = \"demo\"\n";

/// A directory with a profile, a token and a CA, but no server behind them.
fn prepare(dir: &Path, profile: &str) {
    fs::write(dir.join("profile.toml"), profile).unwrap();
    fs::write(dir.join("app.token"), "srt_secretsecretsecretsecretsecretsecretsecretse\n").unwrap();
    fs::set_permissions(dir.join("app.token"), fs::Permissions::from_mode(0o600)).unwrap();
    let authority = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(dir.join("ca.pem"), authority.cert.pem()).unwrap();
}

/// A directory with everything but a server.
pub fn without_server() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), PLACEHOLDER);
    dir
}

#[test]
fn without_any_profile_the_error_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let run = strongroom(dir.path(), ["status"]).fails(2);
    assert!(
        run.err.contains("no profile was found") && run.err.contains("hint: 'strongroomd dev'"),
        "{run:?}"
    );
    assert!(run.out.is_empty());
}

#[test]
fn the_profile_is_looked_for_in_four_places_in_order() {
    let dir = tempfile::tempdir().unwrap();
    // Each profile lacks the tenant, so that the error names the file that was read.
    let text = PLACEHOLDER.replace("tenant = \"demo\"\n", "");
    let places = ["named", "variable", "keys/dev", ".config/strongroom"];
    for place in places {
        fs::create_dir_all(dir.path().join(place)).unwrap();
        prepare(&dir.path().join(place), &text);
    }
    for (index, place) in places.iter().enumerate() {
        let mut words = vec!["session", "list"];
        if index == 0 {
            words.extend(["--profile", "named/profile.toml"]);
        }
        let mut command = prepared(dir.path(), words);
        if index <= 1 {
            command.env("STRONGROOM_PROFILE", "variable/profile.toml");
        }
        let found = run(command, b"").fails(2);
        assert!(found.err.contains(&format!("{place}/profile.toml does not set tenant")), "{found:?}");
        if index == 2 {
            fs::remove_file(dir.path().join("keys/dev/profile.toml")).unwrap();
        }
    }
}

#[test]
fn mistakes_in_a_profile_are_named_with_line_and_hint_and_without_its_content() {
    let dir = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("endpoint = \"https://a:1\"\ntoken = \"srt_secret\"\n", "line 2: unknown field `token`"),
        ("tenant = \"demo\"\n", "missing field `endpoint`"),
        ("endpoint = \"http://a:1\"\n", "must begin with https://"),
        ("endpoint = \"https://a:1\"\ntenant = \"NOT A NAME\"\n", "tenant must consist of"),
        ("endpoint = \"srt_secret\n", "line 1"),
    ] {
        prepare(dir.path(), text);
        let run = strongroom(dir.path(), ["status", "--profile", "profile.toml"]).fails(2);
        assert!(run.err.contains(expected) && run.err.contains("hint: known fields"), "{run:?}");
        assert!(!run.err.contains("srt_secret"), "{run:?}");
    }
}

#[test]
fn a_token_file_that_others_may_read_is_refused_with_the_cure() {
    let dir = without_server();
    let token = dir.path().join("app.token");
    for (mode, cured) in [(0o644, 0o600), (0o640, 0o600), (0o602, 0o600)] {
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        let run = strongroom(dir.path(), ["--profile", "profile.toml", "session", "list"]).fails(2);
        assert!(
            run.err.contains("may be read by others") && run.err.contains("hint: chmod 600 app.token"),
            "{run:?}"
        );
        assert!(!run.err.contains("srt_"), "{run:?}");
        fs::set_permissions(&token, fs::Permissions::from_mode(cured)).unwrap();
        // With the mode repaired it gets as far as the server that is not there.
        strongroom(dir.path(), ["--profile", "profile.toml", "--timeout", "2s", "session", "list"]).fails(4);
    }
}

#[test]
fn a_token_on_the_command_line_is_refused_and_not_repeated() {
    let dir = without_server();
    let words = ["--profile", "profile.toml", "session", "list", "--token-file", "srt_oops"];
    let run = strongroom(dir.path(), words).fails(2);
    assert!(run.err.contains("looks like a token itself") && !run.err.contains("oops"), "{run:?}");
}

#[test]
fn the_token_file_of_the_command_line_comes_before_the_profiles() {
    let dir = without_server();
    let run =
        strongroom(dir.path(), ["--profile", "profile.toml", "session", "list", "--token-file", "gone"])
            .fails(2);
    assert!(run.err.contains("the token file gone cannot be read"), "{run:?}");
}
