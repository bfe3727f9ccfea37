//! Whether kernels take the files that were listed for them, and what these mean for what their tasks cost. The agent knows no kernel; the registry of its build does.
use crate::arrays::shape;
use raftwerk_kernels::{Kernel, ListedArray, ListedInput, Params};
use raftwerk_proto::v1::{Files, InputFile, MemoryNeed, StageFindings, StageReads};

/// Why a kernel does not take its files, with what to do about it; `inputs` are the readers' in their order, listed.
pub(super) fn problem(readers: &[StageReads], inputs: &[Files]) -> Option<String> {
    let refused = |(reader, files): (&StageReads, &[Files])| {
        let listed = listed(reader, files);
        raftwerk_kernels::check_listed(kernel(reader)?, &params(reader), &listed).err().map(|problem| problem.to_string())
    };
    by_reader(readers, inputs).find_map(refused)
}

/// What kernels know once they have seen their files, for each reader.
pub(super) fn findings(readers: &[StageReads], inputs: &[Files]) -> Vec<StageFindings> {
    let found = |(reader, files): (&StageReads, &[Files])| {
        let Some(kernel) = kernel(reader) else { return StageFindings::default() };
        let listed = listed(reader, files);
        if listed == ListedInput::default() {
            return StageFindings::default();
        }
        let memory = kernel.gpu_memory(&params(reader), Some(&listed)).map(|need| MemoryNeed {
            fixed_bytes: need.fixed,
            per_task_bytes: need.per_task,
            per_kilo_unit_bytes: need.per_kilo_unit,
            most_bytes: need.most.unwrap_or_default(),
        });
        StageFindings { footprint: raftwerk_kernels::listed_footprint(kernel, &listed), memory }
    };
    by_reader(readers, inputs).map(found).collect()
}

/// The same of a file whose elements cannot be read at all: `input` is the number of its input, `found` what its header says.
pub(super) fn problem_of_type(readers: &[StageReads], input: usize, path: &str, found: &str) -> Option<String> {
    let mut before = 0;
    let reader = readers.iter().find(|reader| {
        before += reader.names.len();
        input < before
    })?;
    Some(raftwerk_kernels::wrong_type(kernel(reader)?, path, found).to_string())
}

fn by_reader<'a>(readers: &'a [StageReads], inputs: &'a [Files]) -> impl Iterator<Item = (&'a StageReads, &'a [Files])> {
    let mut rest = inputs;
    readers.iter().map(move |reader| {
        let (own, later) = rest.split_at(reader.names.len().min(rest.len()));
        rest = later;
        (reader, own)
    })
}

/// None that this build does not have in this version: whoever runs its tasks will say so.
fn kernel(reader: &StageReads) -> Option<&'static dyn Kernel> {
    let wanted = reader.kernel.as_ref()?;
    let descriptor_fits = |kernel: &&&dyn Kernel| {
        let descriptor = kernel.descriptor();
        descriptor.name == wanted.name && descriptor.version == wanted.version
    };
    raftwerk_kernels::registry().iter().find(descriptor_fits).copied()
}

fn params(reader: &StageReads) -> Params {
    reader.params.iter().map(|param| (param.name.clone(), param.value.clone())).collect()
}

fn listed(reader: &StageReads, inputs: &[Files]) -> ListedInput {
    let mut listed = ListedInput::default();
    for (at, (name, files)) in reader.names.iter().zip(inputs).enumerate() {
        let mut arrays = files.listing.iter().filter_map(|file| array(&files.format, file));
        if at == 0 && !reader.sides_only {
            listed.files.extend(arrays);
        } else {
            listed.sides.extend(arrays.next().map(|array| (name.clone(), array)));
        }
    }
    listed
}

/// Text and images are none.
fn array(format: &str, file: &InputFile) -> Option<ListedArray> {
    Some(ListedArray { path: file.path.clone(), dtype: file.dtype.clone(), shape: shape(format, file)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_kernels::{Accepts, resolve_params};
    use raftwerk_proto::v1::{KernelRef, Param};

    fn reader(kernel: &dyn Kernel, names: &[&str]) -> StageReads {
        let descriptor = kernel.descriptor();
        let params = resolve_params(descriptor, &Params::new()).unwrap();
        StageReads {
            kernel: Some(KernelRef { name: descriptor.name.into(), version: descriptor.version, ..KernelRef::default() }),
            params: params.into_iter().map(|(name, value)| Param { name, value }).collect(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            sides_only: false,
        }
    }

    fn files(format: &str, dtype: &str, record_bytes: u32) -> Files {
        let path = format!("/{dtype}.npy");
        let file =
            InputFile { path, bytes: 128 + 1200, data_offset: 128, record_bytes, dtype: dtype.into(), version: 1, ..InputFile::default() };
        Files { format: format.into(), listing: vec![file], ..Files::default() }
    }

    /// One that reads single elements, of several types and not of all; such there must be, whatever it is called.
    fn of_elements() -> (&'static dyn Kernel, &'static str, &'static str) {
        let mut found = raftwerk_kernels::registry().iter().filter_map(|kernel| match kernel.descriptor().accepts {
            Accepts::Npy(taken) if taken.len() > 1 => {
                let refused = ["u1", "u8"].into_iter().find(|dtype| !taken.contains(dtype))?;
                Some((*kernel, taken[0], refused))
            }
            _ => None,
        });
        found.next().expect("a kernel over elements")
    }

    #[test]
    fn a_type_that_a_kernel_does_not_take_is_its_problem_and_no_other() {
        let (kernel, taken, refused) = of_elements();
        let readers = [reader(kernel, &["input"]), reader(kernel, &["input"])];
        assert_eq!(problem(&readers, &[files("npy", taken, 4), files("npy", taken, 4)]), None);
        let said = problem(&readers, &[files("npy", taken, 4), files("npy", refused, 4)]).expect("a problem");
        assert!(
            said.starts_with(&format!("/{refused}.npy has elements of type {refused}, and kernel `")) && said.contains("\nfix: "),
            "{said}"
        );
        let said = problem_of_type(&readers, 1, "/x.npy", "'<f8'").expect("a problem");
        assert!(said.starts_with("/x.npy has elements of type '<f8', and kernel `") && said.contains("\nfix: "), "{said}");
        assert_eq!(problem_of_type(&readers, 2, "/x.npy", "'<f8'"), None);
    }

    #[test]
    fn types_are_part_of_what_a_stage_is_remembered_by() {
        let (kernel, taken, _) = of_elements();
        let readers = [StageReads::default(), reader(kernel, &["input"])];
        let found = findings(&readers, &[files("npy", taken, 4)]);
        assert_eq!(found[0], StageFindings::default(), "of a kernel that this build does not have");
        assert_eq!(found[1].footprint, format!("dtype={taken}"));
        assert_eq!(findings(&readers[1..], &[files("text", "", 0)]), [StageFindings::default()]);
    }

    #[test]
    fn a_kernel_of_another_version_and_text_say_nothing() {
        let (kernel, _, refused) = of_elements();
        let mut other = reader(kernel, &["input"]);
        other.kernel.as_mut().unwrap().version += 1;
        assert_eq!(problem(&[other], &[files("npy", refused, 4)]), None);
        assert_eq!(problem(&[reader(kernel, &["input"])], &[files("text", "", 0)]), None);
        assert_eq!(problem(&[StageReads::default()], &[]), None);
        assert_eq!(problem(&[reader(kernel, &["input", "side"])], &[]), None, "whatever a listing lacks");
    }

    #[test]
    fn side_inputs_are_told_from_the_input() {
        let with_side = raftwerk_kernels::registry().iter().find(|kernel| kernel.sides().first().is_some_and(|side| side.dimensions == 2));
        let kernel = *with_side.expect("a kernel with a matrix beside its input");
        let (side, dtype) = (kernel.sides()[0].name, kernel.sides()[0].dtypes[0]);
        let reads = reader(kernel, &["input", side]);
        let listed = listed(&reads, &[files("npy-rows", dtype, 12), files("npy-rows", dtype, 24)]);
        assert_eq!((listed.files[0].shape.as_slice(), listed.side(side).unwrap().shape.as_slice()), (&[100, 3][..], &[50, 6][..]));
        let said = problem(&[StageReads { sides_only: true, names: vec![side.into()], ..reads }], &[files("npy-rows", "u8", 24)])
            .expect("a problem");
        assert!(said.contains(&format!("as side input '{side}'")), "{said}");
    }
}
