//! `cargo xtask test`: everything that must hold before a change is taken, in the order in which faults are cheap to find.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::project::{cargo, run as execute};
use crate::{deny, fetch, rooms};

/// What to check.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Run this step alone; may be given several times.
    #[arg(long, value_enum, value_name = "STEP")]
    only: Vec<Step>,
    /// Handed on to the test runner, such as the name of a test.
    #[arg(last = true)]
    runner: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// cargo fmt --check
    Format,
    /// cargo clippy, warnings denied
    Lint,
    /// imports that break the order of the modules (`cargo xtask rooms`)
    Rooms,
    /// licences and banned crates (deny.toml)
    Deny,
    /// download a real mongod, once
    Fetch,
    /// compile programs and tests
    Build,
    /// unit tests alone
    Unit,
    /// every test
    Test,
}

/// All steps; [`Step::Unit`] is a part of the last.
const ALL: [Step; 7] = [Step::Format, Step::Lint, Step::Rooms, Step::Deny, Step::Fetch, Step::Build, Step::Test];

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Format => "formatting",
            Self::Lint => "lints",
            Self::Rooms => "order of the modules",
            Self::Deny => "licences and bans",
            Self::Fetch => "mongod",
            Self::Build => "build",
            Self::Unit => "unit tests",
            Self::Test => "tests",
        }
    }
}

/// Runs the steps in order and stops at the first that fails.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let steps = if arguments.only.is_empty() { ALL.to_vec() } else { arguments.only.clone() };
    let runner = Runner::find();
    let mut timings: Vec<(Step, Duration)> = Vec::new();
    for step in steps {
        println!("== {}", step.name());
        let begun = Instant::now();
        let result = step.run(runner, &arguments.runner);
        timings.push((step, begun.elapsed()));
        if let Err(error) = result {
            report(&timings);
            return Err(error.context(format!("{} failed", step.name())));
        }
    }
    report(&timings);
    println!("all well");
    Ok(ExitCode::SUCCESS)
}

fn report(timings: &[(Step, Duration)]) {
    println!("== time");
    for (step, time) in timings {
        println!("{:>8.1} s  {}", time.as_secs_f64(), step.name());
    }
}

impl Step {
    fn run(self, runner: Runner, extra: &[String]) -> Result<()> {
        match self {
            Self::Format => {
                execute(cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` puts it right")
            }
            Self::Lint => {
                execute(cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
            }
            Self::Rooms => rooms::check(),
            Self::Deny => deny::run(),
            Self::Fetch => {
                println!("{}", fetch::mongod()?.display());
                Ok(())
            }
            // The end-to-end tests start the programs: these are no dependencies of a test, so they are built first.
            Self::Build => {
                execute(cargo().args(["build", "--locked", "--workspace"]))?;
                execute(runner.command(&["--no-run"]).args(["--workspace"]))
            }
            Self::Unit => execute(runner.command(&["--workspace", "--lib", "--bins"]).args(extra)),
            Self::Test => {
                let mongod: PathBuf = fetch::mongod()?;
                execute(cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
                execute(runner.command(&["--workspace"]).args(extra).env(fetch::MONGOD, mongod))
            }
        }
    }
}

/// What runs the tests.
#[derive(Clone, Copy)]
enum Runner {
    /// cargo-nextest: several tests at a time, each in its own process, with time limits.
    Nextest,
    /// Plain cargo, where nextest is not installed.
    Cargo,
}

impl Runner {
    fn find() -> Self {
        let found = cargo().args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
        if found {
            return Self::Nextest;
        }
        println!("cargo-nextest is not installed: using plain `cargo test`, without its time limits");
        Self::Cargo
    }

    fn command(self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        match self {
            Self::Nextest => command.args(["nextest", "run", "--locked"]),
            Self::Cargo => command.args(["test", "--locked"]),
        };
        command.args(arguments);
        command
    }
}
