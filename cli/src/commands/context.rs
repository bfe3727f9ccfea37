//! `raftwerk context list | show | use | add | remove`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::console::Console;
use crate::contexts::{self, Context, Contexts};
use crate::credential::load_credential;
use crate::failure::{Exit, Failure, Outcome};
use crate::job_file::hint;
use crate::table::Table;
use crate::target::Target;

#[derive(Subcommand, Debug)]
pub enum ContextCommand {
    /// List the contexts; the current one is marked with `*`
    List,
    /// Show which cluster a command would talk to
    Show,
    /// Make a context the current one
    Use(Name),
    /// Add or replace a context from --address and --credential, and make it the current one
    Add(Name),
    /// Take a context out; the cluster and the credential file stay as they are
    Remove(Name),
}

#[derive(Args, Debug)]
pub struct Name {
    #[arg(value_parser = context_name)]
    name: String,
}

pub fn context_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if text.is_empty() || !text.chars().all(fits) {
        return Err("a context's name has letters, digits and - _ . @, and is not empty".to_owned());
    }
    Ok(text.to_owned())
}

pub fn context(console: &Console, target: &Target, command: ContextCommand) -> Outcome {
    let file = contexts::place()?;
    let mut known = Contexts::load(&file).map_err(|error| Failure::new(Exit::BadUsage, error))?;
    match command {
        ContextCommand::List => list(console, &known),
        ContextCommand::Show => show(console, target)?,
        ContextCommand::Use(Name { name }) => {
            present(&known, &name)?;
            known.current = Some(name.clone());
            save(&known, &file)?;
            console.note(format!("the current context is {name}"));
        }
        ContextCommand::Add(Name { name }) => {
            let context = given(target)?;
            known.contexts.insert(name.clone(), context);
            known.current = Some(name.clone());
            save(&known, &file)?;
            console.note(format!("context {name} is written to {} and is the current one", file.display()));
        }
        ContextCommand::Remove(Name { name }) => {
            present(&known, &name)?;
            known.contexts.remove(&name);
            known.current = known.current.filter(|current| *current != name);
            save(&known, &file)?;
            console.note(format!("context {name} is removed"));
        }
    }
    Ok(())
}

fn save(known: &Contexts, file: &Path) -> Outcome {
    known.save(file).map_err(|error| Failure::new(Exit::BadUsage, error).fix("set RAFTWERK_CONFIG to a file that can be written"))
}

fn present(known: &Contexts, name: &str) -> Outcome {
    if known.contexts.contains_key(name) {
        return Ok(());
    }
    let names: Vec<&str> = known.contexts.keys().map(String::as_str).collect();
    let fix = if names.is_empty() { "there is none yet; add one with `raftwerk context add`".to_owned() } else { hint(name, &names) };
    Err(Failure::say(Exit::NotFound, format!("there is no context `{name}`")).fix(fix))
}

/// A context from the flags. The credential is read once, so that a wrong file is noticed now and not at the next submit.
fn given(target: &Target) -> Result<Context, Failure> {
    let credential: &PathBuf = target
        .credential
        .as_ref()
        .filter(|_| !target.address.is_empty())
        .ok_or_else(|| Failure::say(Exit::BadUsage, "a context needs --address HOST:PORT[,..] and --credential FILE"))?;
    load_credential(credential)?;
    let credential = std::path::absolute(credential)
        .map_err(|error| Failure::new(Exit::BadUsage, error).context(format!("cannot resolve {}", credential.display())))?;
    Ok(Context { addresses: target.address.clone(), credential })
}

fn list(console: &Console, known: &Contexts) {
    if console.is_json() {
        let entry =
            |(name, context): (&String, &Context)| json!({"name": name, "addresses": context.addresses, "credential": context.credential});
        console.json(json!({"current": known.current, "contexts": known.contexts.iter().map(entry).collect::<Vec<_>>()}));
        return;
    }
    let mut table = Table::new(["", "name", "addresses", "credential"]);
    for (name, context) in &known.contexts {
        let mark = if known.current.as_ref() == Some(name) { "*" } else { "" };
        table.row([mark.into(), name.as_str().into(), context.addresses.join(",").into(), context.credential.display().to_string().into()]);
    }
    console.table(&table);
}

fn show(console: &Console, target: &Target) -> Outcome {
    let destination = target.destination()?;
    if let Some(gone) = destination.gone() {
        gone.lines().iter().for_each(|line| console.note(line));
    }
    if console.is_json() {
        console.json(json!({"context": destination.context, "addresses": destination.addresses, "credential": destination.credential}));
    } else {
        console.line(format!("context: {}", destination.context.as_deref().unwrap_or("none (flags or environment)")));
        console.line(format!("addresses: {}", destination.addresses.join(",")));
        console.line(format!("credential: {}", destination.credential.display()));
    }
    Ok(())
}
