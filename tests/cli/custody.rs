//! Key material that is imported and exported: what is read, what is refused, what is shown, and what nobody sees.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use strongroom::crypto::{Secret, WrappingPrivateKey, WrappingPublicKey};
use strongroom::env::SystemEntropy;

use crate::command::{Run, prepared, run, strongroom, strongroom_at_terminal, strongroom_with};
use crate::dev_server::DevServer;
use crate::fake::Fake;

const MATERIAL: [u8; 32] = *b"\x81 thirty-two bytes of material \xff";

fn key(dir: &Path, words: &[&str]) -> Run {
    strongroom(dir, ["key"].iter().chain(words))
}

fn json_of(dir: &Path, words: &[&str]) -> Value {
    key(dir, &[words, &["--output", "json"]].concat()).ok().json()
}

fn file(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Whether a run says nothing of the material, in whatever form.
fn is_silent(run: &Run, material: &[u8]) -> bool {
    let said = [run.out.as_slice(), run.err.as_bytes()].concat();
    let forms = [material.to_vec(), BASE64.encode(material).into(), HEXLOWER.encode(material).into()];
    forms.iter().all(|form| !said.windows(form.len()).any(|part| part == form))
}

#[test]
fn material_is_read_from_a_file_of_its_owner_or_standard_input_in_three_forms() {
    let fake = Fake::rotated(0);
    let forms = [
        MATERIAL.to_vec(),
        BASE64.encode(&MATERIAL).into(),
        format!("{}\n", HEXLOWER.encode(&MATERIAL)).into(),
    ];
    for (number, form) in forms.iter().enumerate() {
        file(fake.dir(), "key", form, 0o600);
        let made = json_of(fake.dir(), &["import", "--file", "key"]);
        assert_eq!((&made["version"], &made["origin"]), (&json!(3 + number), &json!("imported")));
        assert_eq!(made["state"], "primary");
    }
    let piped = strongroom_with(fake.dir(), ["key", "import", "--file", "-", "--pending"], &MATERIAL).ok();
    assert!(piped.text().contains("state        pending\n") && is_silent(&piped, &MATERIAL), "{piped:?}");
}

#[test]
fn a_file_that_others_can_read_is_refused_and_so_is_one_that_holds_no_key() {
    let fake = Fake::rotated(0);
    for mode in [0o640, 0o604, 0o660] {
        file(fake.dir(), "key", &MATERIAL, mode);
        let refused = key(fake.dir(), &["import", "--file", "key"]).fails(1);
        assert!(refused.err.contains(&format!("has mode {mode:04o}")), "{refused:?}");
        assert!(refused.err.contains("hint: give it mode 600"), "{refused:?}");
    }
    let wrong: [&[u8]; 5] = [b"", &MATERIAL[1..], b"not a key", &[b'a'; 300], &[0; 33]];
    for bytes in wrong {
        file(fake.dir(), "key", bytes, 0o600);
        let refused = key(fake.dir(), &["import", "--file", "key"]).fails(1);
        assert!(bytes.is_empty() || is_silent(&refused, bytes), "{refused:?}");
    }
    file(fake.dir(), "key", &[0x61; 32], 0o600);
    let refused = key(fake.dir(), &["import", "--file", "key"]).fails(2);
    assert!(refused.err.contains("all of its bytes are the same"), "{refused:?}");
    key(fake.dir(), &["import", "--file", "missing"]).fails(1);
    let listed = json_of(fake.dir(), &["list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "nothing was imported");
}

#[test]
fn the_forms_of_an_import_exclude_each_other() {
    let fake = Fake::rotated(0);
    file(fake.dir(), "key", &MATERIAL, 0o600);
    let uid = "00000000-0000-4000-8000-000000000002";
    key(fake.dir(), &["import"]).fails(2);
    key(fake.dir(), &["import", "--wrapped", "key"]).fails(2);
    key(fake.dir(), &["import", "--file", "key", "--wrapped", "key", "--wrapping-key", uid]).fails(2);
    key(fake.dir(), &["import", "--file", "key", "--wrapping-key", uid]).fails(2);
    key(fake.dir(), &["import", "--wrapped", "key", "--wrapping-key", "no uid"]).fails(2);
    // What is wrapped is no secret, and must have its length.
    key(fake.dir(), &["import", "--wrapped", "key", "--wrapping-key", uid]).fails(1);
    file(fake.dir(), "wrapped", BASE64.encode(&[7; 80]).as_bytes(), 0o644);
    key(fake.dir(), &["import", "--wrapped", "wrapped", "--wrapping-key", uid]).ok();
    let gone = uid.replace('2', "3");
    let refused = key(fake.dir(), &["import", "--wrapped", "wrapped", "--wrapping-key", &gone]).fails(3);
    assert!(refused.err.contains("hint: a wrapping key is for one import"), "{refused:?}");
}

#[test]
fn a_wrapping_key_is_shown_with_what_other_tools_need() {
    let fake = Fake::rotated(0);
    let expected = json!({
        "uid": "00000000-0000-4000-8000-000000000002", "public_key": BASE64.encode(&[9; 32]), "info": "what is bound",
        "expires": crate::fake::TIME,
    });
    assert_eq!(json_of(fake.dir(), &["wrapping-key"]), expected);
    let shown = key(fake.dir(), &["wrapping-key"]).ok();
    assert!(shown.text().contains("public key  CQkJ") && shown.text().contains("info        what is bound"));
}

#[test]
fn an_export_asks_writes_a_file_of_its_owner_and_leaves_none_behind_when_it_is_refused() {
    let fake = Fake::start();
    strongroom(fake.dir(), ["tenant", "create", "demo"]).ok();
    file(fake.dir(), "public", &[9; 32], 0o644);
    let words = ["key", "export", "1", "--to", "public", "--out", "out.json"];
    let refused = strongroom(fake.dir(), words).fails(1);
    assert!(refused.err.contains("standard input is not a terminal"), "{refused:?}");
    let refused = strongroom(fake.dir(), words.iter().chain(&["--yes"])).fails(1);
    assert!(refused.err.contains("created with --exportable"), "{refused:?}");
    assert!(!fake.dir().join("out.json").exists());

    let made = strongroom(fake.dir(), ["tenant", "create", "demo", "--exportable", "--output", "json"]).ok();
    assert_eq!(made.json()["exportable"], true);
    let asked = strongroom_at_terminal(fake.dir(), words, "demo\n").fails(1);
    assert!(asked.err.contains("This gives version 1 of the key of the tenant demo"), "{asked:?}");
    let done = strongroom_at_terminal(fake.dir(), words, "demo/1\n").ok();
    assert!(done.text().contains(&format!("exported     {}", crate::fake::TIME)), "{done:?}");
    let path = fake.dir().join("out.json");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let said: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let suite = "HPKE base, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM";
    let expected = json!({ "suite": suite, "info": "what is bound", "wrapped": BASE64.encode(&[7; 80]) });
    assert_eq!(said, expected);
    // A file that is there is left as it is.
    strongroom(fake.dir(), words.iter().chain(&["--yes"])).fails(1);
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap(), expected);
}

/// All files below a directory.
fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

/// From a file to a key that works, and out again: with a real server, which never has the material in the clear on disk.
#[test]
fn material_goes_in_is_used_and_comes_out_the_same_and_is_in_no_file_of_the_server() {
    let server = DevServer::start();
    let dir = server.dir();
    strongroom(dir, ["tenant", "create", "acme", "--exportable"]).ok();
    let tenant = ["--tenant", "acme", "--token-file", "keys/dev/admin.token"];
    let key = |words: &[&str]| strongroom(dir, ["key"].iter().chain(words).chain(&tenant));
    let session =
        strongroom(dir, ["session", "create", "--output", "json"].iter().chain(&tenant)).ok().json();
    let session = session["session"].as_str().unwrap().to_owned();
    let put = prepared(dir, ["entry", "put", &session, "k"].iter().chain(&tenant));
    run(put, b"a value").ok();

    let material = Secret::generate(&SystemEntropy::new()).unwrap();
    let secret = file(dir, "material", HEXLOWER.encode(material.expose()).as_bytes(), 0o600);
    let imported = key(&["import", "--file", "material", "--pending"]).ok();
    assert!(is_silent(&imported, material.expose()));
    fs::remove_file(secret).unwrap();
    key(&["promote", "2"]).ok();
    strongroom(dir, ["job", "start", "rewrap"].iter().chain(&tenant)).ok();
    strongroom(dir, ["job", "watch", "rewrap"].iter().chain(&tenant)).ok();
    key(&["destroy", "1", "--no-grace", "--yes"]).ok();
    let read = strongroom(dir, ["entry", "get", &session, "k", "--view", "full"].iter().chain(&tenant)).ok();
    assert_eq!(read.out, b"a value");

    // Wrapped elsewhere: another key, for a key that the server made.
    let wrapping = key(&["wrapping-key", "--output", "json"]).ok().json();
    let public: [u8; 32] =
        BASE64.decode(text(&wrapping["public_key"]).as_bytes()).unwrap().try_into().unwrap();
    let other = Secret::generate(&SystemEntropy::new()).unwrap();
    let wrapped = WrappingPublicKey(public).wrap_now(text(&wrapping["info"]).as_bytes(), &other).unwrap();
    file(dir, "wrapped", &wrapped.0, 0o644);
    let uid = text(&wrapping["uid"]);
    key(&["import", "--wrapped", "wrapped", "--wrapping-key", uid, "--pending"]).ok();
    key(&["import", "--wrapped", "wrapped", "--wrapping-key", uid]).fails(3);

    let recipient = WrappingPrivateKey::generate(&SystemEntropy::new()).unwrap();
    file(dir, "public", HEXLOWER.encode(&recipient.public().0).as_bytes(), 0o644);
    for (version, expected) in [("2", &material), ("3", &other)] {
        let out = format!("out-{version}.json");
        key(&["export", version, "--to", "public", "--out", &out, "--yes"]).ok();
        let said: Value = serde_json::from_slice(&fs::read(dir.join(&out)).unwrap()).unwrap();
        let wrapped = BASE64.decode(text(&said["wrapped"]).as_bytes()).unwrap();
        let unwrapped = recipient.unwrap(text(&said["info"]).as_bytes(), &wrapped).unwrap();
        assert!(unwrapped.equals(expected));
    }
    let listed = key(&["list", "--output", "json"]).ok().json();
    let origins: Vec<_> = listed.as_array().unwrap().iter().map(|key| text(&key["origin"])).collect();
    assert_eq!(origins, ["generated", "imported", "imported"]);
    assert!(listed[0]["exported"].is_null() && listed[1]["exported"].is_string());

    let mut paths = Vec::new();
    files(dir, &mut paths);
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        for secret in [&material, &other] {
            let hex = HEXLOWER.encode(secret.expose());
            let base64 = BASE64.encode(secret.expose());
            for form in [secret.expose().as_slice(), hex.as_bytes(), base64.as_bytes()] {
                let found = bytes.windows(form.len()).any(|part| part == form);
                assert!(!found, "key material stands in {}", path.display());
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
