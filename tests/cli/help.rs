//! The help of every command, held by plain text files. `UPDATE_GOLDEN=1 cargo test --test cli help` writes them anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory as _;
use strongroom::cli::Cli;

use crate::command::strongroom;

fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help")
}

/// The words that lead to each command.
fn paths(command: &clap::Command, prefix: &[String]) -> Vec<Vec<String>> {
    let mut all = vec![prefix.to_vec()];
    for child in command.get_subcommands() {
        let mut path = prefix.to_vec();
        path.push(child.get_name().to_owned());
        all.extend(paths(child, &path));
    }
    all
}

fn file_name(path: &[String]) -> String {
    let words: Vec<&str> = std::iter::once("strongroom").chain(path.iter().map(String::as_str)).collect();
    format!("{}.txt", words.join("-"))
}

#[test]
fn the_command_line_is_free_of_contradictions() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_of_every_command_is_as_written_down() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for path in paths(&Cli::command(), &[]) {
        let run = strongroom(dir.path(), path.iter().map(String::as_str).chain(["--help"])).ok();
        // Trailing blanks come from the library; the files are kept free of them.
        let lines: Vec<&str> = run.text().lines().map(str::trim_end).collect();
        let text = lines.join("\n") + "\n";
        let file = golden_dir().join(file_name(&path));
        if update {
            fs::create_dir_all(golden_dir()).unwrap();
            fs::write(&file, text).unwrap();
        } else if fs::read_to_string(&file).ok().as_ref() != Some(&text) {
            wrong.push(file_name(&path));
        }
    }
    assert!(wrong.is_empty(), "changed: {wrong:?}; if that is meant, run it with UPDATE_GOLDEN=1");
}

#[test]
fn no_help_is_written_down_for_a_command_that_is_gone() {
    let known: BTreeSet<String> = paths(&Cli::command(), &[]).iter().map(|path| file_name(path)).collect();
    let kept: BTreeSet<String> = fs::read_dir(golden_dir())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(kept, known);
}

#[test]
fn every_shell_gets_a_script_that_names_every_noun() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let run = strongroom(dir.path(), ["completion", shell]).ok();
        for noun in Cli::command().get_subcommands() {
            assert!(run.text().contains(noun.get_name()), "{shell} {}", noun.get_name());
        }
    }
}

#[test]
fn a_bash_script_is_valid_bash() {
    let dir = tempfile::tempdir().unwrap();
    let script = strongroom(dir.path(), ["completion", "bash"]).ok();
    fs::write(dir.path().join("script"), &script.out).unwrap();
    let checked = std::process::Command::new("bash").arg("-n").arg(dir.path().join("script")).status();
    assert!(checked.unwrap().success());
}
