//! What is known of a stage's arrays before any of it is read: what their headers say. A job that a kernel cannot take is refused by it, and not
//! by tasks that fail.

use std::collections::BTreeSet;
use std::fmt;

use crate::api::{Accepts, Kernel, KernelError, Params};
use crate::counted;

/// One `.npy` file, as its header tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedArray {
    pub path: String,
    /// "u1", "u4", "u8", "f4".
    pub dtype: String,
    /// Lengths of its dimensions: one for elements, two for rows.
    pub shape: Vec<u64>,
}

/// What a stage is going to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedInput {
    /// Of the input that is cut into tasks, in the order of their names. None where that is no array.
    pub files: Vec<ListedArray>,
    /// Side inputs by the names that [`Kernel::sides`] gives them.
    pub sides: Vec<(String, ListedArray)>,
}

impl ListedInput {
    pub fn side(&self, name: &str) -> Option<&ListedArray> {
        self.sides.iter().find(|(side, _)| side == name).map(|(_, array)| array)
    }

    /// The first file whose type is not that of the first one.
    pub(crate) fn other_type(&self) -> Option<(&ListedArray, &ListedArray)> {
        let first = self.files.first()?;
        Some((first, self.files.iter().find(|file| file.dtype != first.dtype)?))
    }
}

/// Why a kernel does not take an input, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputProblem {
    pub message: String,
    pub fix: String,
}

impl InputProblem {
    pub(crate) fn new(message: impl Into<String>, fix: impl Into<String>) -> InputProblem {
        InputProblem { message: message.into(), fix: fix.into() }
    }
}

/// Two lines.
impl fmt::Display for InputProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nfix: {}", self.message, self.fix)
    }
}

/// Whether the kernel takes these arrays: their types, the shapes of side inputs, and what it has to say itself ([`Kernel::check_listed`]).
pub fn check_listed(kernel: &dyn Kernel, params: &Params, input: &ListedInput) -> Result<(), InputProblem> {
    for file in &input.files {
        if !takes(kernel).contains(&file.dtype.as_str()) {
            return Err(wrong_type(kernel, &file.path, &file.dtype));
        }
    }
    let name = kernel.descriptor().name;
    for (side, array) in &input.sides {
        // A side input that the kernel does not know is refused where the job file is read.
        let Some(spec) = kernel.sides().iter().find(|spec| spec.name == side) else { continue };
        if !spec.dtypes.contains(&array.dtype.as_str()) {
            return Err(InputProblem::new(
                format!(
                    "{} has elements of type {}, and kernel `{name}` takes {} as side input '{side}'",
                    array.path,
                    array.dtype,
                    or(spec.dtypes)
                ),
                convert(&array.path, &array.dtype, spec.dtypes),
            ));
        }
        if array.shape.len() != spec.dimensions {
            return Err(InputProblem::new(
                format!(
                    "{} has {}, and kernel `{name}` takes {} as side input '{side}'",
                    array.path,
                    counted(array.shape.len() as u64, "dimension"),
                    spec.dimensions
                ),
                format!("give {}", spec.doc),
            ));
        }
    }
    kernel.check_listed(params, input)
}

/// For kernels whose files must be of one type: "sorting is".
pub(crate) fn one_type(input: &ListedInput, what: &str) -> Result<(), InputProblem> {
    let Some((first, other)) = input.other_type() else { return Ok(()) };
    Err(InputProblem::new(
        format!("{} has elements of type {} and {} of {}; {what} of one type", first.path, first.dtype, other.path, other.dtype),
        "use a job for each type",
    ))
}

/// Said of a file whose elements the kernel does not take, in whatever words its header names them.
pub fn wrong_type(kernel: &dyn Kernel, path: &str, found: &str) -> InputProblem {
    let accepted = takes(kernel);
    let name = kernel.descriptor().name;
    let message = match accepted {
        [] => format!("{path} is an array, and kernel `{name}` takes none"),
        _ => format!("{path} has elements of type {found}, and kernel `{name}` takes {}", or(accepted)),
    };
    InputProblem::new(message, convert(path, found, accepted))
}

/// The same of a task's input, where the file's name is known to whoever runs the task.
pub(crate) fn wrong_type_of_task(kernel: &dyn Kernel, found: &str) -> KernelError {
    let accepted = takes(kernel);
    let name = kernel.descriptor().name;
    let like = nearest(found, accepted);
    KernelError::Input(format!(
        "elements of type {found}, and kernel `{name}` takes {}; fix: convert the array, in NumPy by array.astype(\"{like}\")",
        or(accepted)
    ))
}

fn takes(kernel: &dyn Kernel) -> &'static [&'static str] {
    match kernel.descriptor().accepts {
        Accepts::Npy(dtypes) | Accepts::Rows(dtypes) => dtypes,
        _ => &[],
    }
}

fn convert(path: &str, found: &str, accepted: &[&str]) -> String {
    match nearest(found, accepted) {
        "" => "give the kernel the kind of input that `raftwerk kernels describe` names".to_owned(),
        like => format!("convert it, for example in Python: numpy.save(\"new.npy\", numpy.load(\"{path}\").astype(\"{like}\"))"),
    }
}

/// Of the types that are taken, one of the same kind as what was found (floating point or whole numbers), and the widest of these.
fn nearest<'a>(found: &str, accepted: &[&'a str]) -> &'a str {
    let floating = found.contains('f');
    let same_kind = |dtype: &&&str| dtype.starts_with('f') == floating;
    accepted.iter().rfind(same_kind).or(accepted.last()).copied().unwrap_or_default()
}

/// "u1, u4 or f4"
fn or(dtypes: &[&str]) -> String {
    match dtypes {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => dtypes.concat(),
    }
}

/// What the input adds to the footprint of a stage ([`crate::footprint()`]): "dtype=f4" where the kernel takes several types, and what of the shapes
/// matters ([`Kernel::listed_footprint`]).
pub fn listed_footprint(kernel: &dyn Kernel, input: &ListedInput) -> String {
    let mut words = Vec::new();
    if takes(kernel).len() > 1 {
        let types: BTreeSet<&str> = input.files.iter().map(|file| file.dtype.as_str()).collect();
        if !types.is_empty() {
            words.push(format!("dtype={}", types.into_iter().collect::<Vec<_>>().join("+")));
        }
    }
    words.extend(Some(kernel.listed_footprint(input)).filter(|shape| !shape.is_empty()));
    words.join(" ")
}

#[cfg(test)]
mod tests;
