//! The commands of the terminal client.

/// One line of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Send this text.
    Say(String),
    /// Stop the answer that is being generated.
    Stop,
    /// Start another session.
    New,
    /// List the sessions of the user.
    List,
    /// Show older entries.
    History,
    /// Show the commands.
    Help,
    /// End the program.
    Quit,
    /// A command that does not exist.
    Unknown(String),
    /// Nothing to do.
    Empty,
}

pub(super) const HELP: &str = "\
/new      start another session
/list     show your sessions
/history  show older entries of this session
/stop     stop the answer that is being generated
/quit     end the program
Every other line is sent as a message. To send a text that begins with /, begin with //.
";

impl Line {
    pub(super) fn parse(line: &str) -> Self {
        let line = line.trim_end_matches(['\r', '\n']);
        match line.trim() {
            "" => Self::Empty,
            "/stop" => Self::Stop,
            "/new" => Self::New,
            "/list" => Self::List,
            "/history" => Self::History,
            "/help" | "/?" => Self::Help,
            "/quit" | "/exit" => Self::Quit,
            text if text.starts_with("//") => Self::Say(text[1..].to_owned()),
            text if text.starts_with('/') => Self::Unknown(text.to_owned()),
            _ => Self::Say(line.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_messages() {
        for (line, meaning) in [
            ("/stop", Line::Stop),
            (" /quit \r\n", Line::Quit),
            ("", Line::Empty),
            ("   ", Line::Empty),
            ("/etc/passwd", Line::Unknown("/etc/passwd".to_owned())),
            ("//etc/passwd", Line::Say("/etc/passwd".to_owned())),
            ("  indented\r", Line::Say("  indented".to_owned())),
        ] {
            assert_eq!(Line::parse(line), meaning, "{line:?}");
        }
    }

    #[test]
    fn the_help_names_commands_that_exist() {
        for word in HELP.lines().filter_map(|line| line.split(' ').next()).filter(|word| word.starts_with('/')) {
            assert!(!matches!(Line::parse(word), Line::Unknown(_) | Line::Say(_)), "{word}");
        }
    }
}
