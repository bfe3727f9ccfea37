//! What a client asks for, in the words of a Flight descriptor.

use arrow_flight::FlightDescriptor;
use arrow_flight::flight_descriptor::DescriptorType;
use tonic::Status;

/// A job's result, and what its text is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub job: u64,
    /// Columns of CSV as bytes instead of UTF-8, for what may be neither.
    pub binary: bool,
}

impl Asked {
    /// The path `["7"]` or `["7", "binary"]`, or the same words as a command, with a blank between.
    pub fn read(descriptor: &FlightDescriptor) -> Result<Asked, Status> {
        let usage = |found: &str| {
            Status::invalid_argument(format!(
                "a result is asked for by the path [\"JOB\"] or [\"JOB\", \"binary\"], JOB being its number; {found}"
            ))
        };
        let words: Vec<&str> = match descriptor.r#type() {
            DescriptorType::Path => descriptor.path.iter().map(String::as_str).collect(),
            DescriptorType::Cmd => str::from_utf8(&descriptor.cmd).map_err(|_| usage("this is no text"))?.split_whitespace().collect(),
            DescriptorType::Unknown => return Err(usage("there is neither a path nor a command")),
        };
        let (job, binary) = match words.as_slice() {
            [job] => (job, false),
            [job, "binary"] => (job, true),
            other => return Err(usage(&format!("this says {other:?}"))),
        };
        let job = job.parse().map_err(|_| usage(&format!("{job:?} is no number")))?;
        Ok(Asked { job, binary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(words: &[&str]) -> Result<Asked, String> {
        let path = words.iter().map(|word| (*word).to_owned()).collect();
        Asked::read(&FlightDescriptor::new_path(path)).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn a_path_or_a_command_names_the_job() {
        assert_eq!(path(&["7"]), Ok(Asked { job: 7, binary: false }));
        assert_eq!(path(&["7", "binary"]), Ok(Asked { job: 7, binary: true }));
        assert_eq!(Asked::read(&FlightDescriptor::new_cmd("7 binary")).ok(), Some(Asked { job: 7, binary: true }));
    }

    #[test]
    fn anything_else_says_what_is_expected_and_what_was_found() {
        for (words, found) in [(vec![], "[]"), (vec!["seven"], "\"seven\""), (vec!["7", "text"], "\"text\""), (vec!["-7"], "\"-7\"")] {
            let message = path(&words).unwrap_err();
            assert!(message.contains("[\"JOB\", \"binary\"]") && message.contains(found), "{words:?}: {message}");
        }
        assert!(Asked::read(&FlightDescriptor::new_cmd(vec![0xff])).is_err());
        assert!(Asked::read(&FlightDescriptor::default()).is_err());
    }
}
