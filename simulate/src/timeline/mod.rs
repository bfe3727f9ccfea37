//! Who did what when: one row per device, time from left to right, a colour per job. With more devices than rows fit, neighbours share a row,
//! and a busier one is darker; so the picture of a thousand devices stays a picture.

mod font;
mod png;
mod svg;

use crate::rate::Ns;
use crate::scenario::{Group, Scenario};
use crate::world::Segment;
use std::path::Path;

/// Width of the plot in pixels, and the height that rows may take.
const WIDTH: usize = 1_200;
const HEIGHT: usize = 1_000;
/// A row is never higher than this.
const ROW: usize = 22;

/// Letters of a group's name beside the rows; both kinds of picture have room for so many.
const LABEL: usize = 23;

type Colour = [u8; 3];

const WHITE: Colour = [255, 255, 255];
const INK: Colour = [40, 40, 40];
const FAINT: Colour = [200, 200, 200];
const IDLE: Colour = [240, 240, 240];
const VAIN: Colour = [200, 30, 30];
/// Of jobs, in turn (Okabe and Ito, 2008: told apart by people who see colours differently).
const PALETTE: [Colour; 7] = [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [120, 94, 40], [150, 150, 20]];

/// The picture before it is written: rows of pixels, their names, and the time axis.
struct Picture {
    title: String,
    rows: Vec<Vec<Colour>>,
    row_height: usize,
    /// Row and name of the first device of each group.
    groups: Vec<(usize, String)>,
    /// Column and text.
    times: Vec<(usize, String)>,
    /// Colour and text.
    legend: Vec<(Colour, String)>,
}

/// Writes the timeline as SVG or PNG, by the file's name.
pub fn write(path: &Path, scenario: &Scenario, title: &str, segments: &[Segment], until: Ns) -> std::io::Result<()> {
    let picture = draw(scenario, title, segments, until.max(1));
    let bytes = if is_of(path, "png") { png::bytes(&picture)? } else { svg::text(&picture).into_bytes() };
    std::fs::write(path, bytes)
}

/// Whether the name says what to write.
pub fn is_possible(path: &Path) -> bool {
    is_of(path, "png") || is_of(path, "svg")
}

/// In capitals too, as some systems write them.
fn is_of(path: &Path, kind: &str) -> bool {
    path.extension().is_some_and(|own| own.eq_ignore_ascii_case(kind))
}

fn draw(scenario: &Scenario, title: &str, segments: &[Segment], until: Ns) -> Picture {
    let devices = scenario.devices().max(1) as usize;
    let together = devices.div_ceil(HEIGHT);
    let rows = devices.div_ceil(together);
    let mut busy = vec![Mix::default(); rows * WIDTH];
    for segment in segments {
        let row = segment.device as usize / together;
        let colour = if segment.in_vain { VAIN } else { PALETTE[colour_of(scenario, segment) % PALETTE.len()] };
        let threads = 1.0 / together as f64;
        let (from, to) = (column(segment.begun, until), column(segment.end.min(until), until));
        let (first, last) = (from as usize, (to.ceil() as usize).min(WIDTH));
        for at in first..last {
            let part = (to.min(at as f64 + 1.0) - from.max(at as f64)).max(0.0);
            busy[row * WIDTH + at].add(colour, part * threads);
        }
    }
    let mut first = 0;
    let mut groups = Vec::new();
    for group in &scenario.groups {
        groups.push((first / together, label(group)));
        first += group.count as usize;
    }
    Picture {
        title: title.to_owned(),
        rows: busy.chunks(WIDTH).map(|row| row.iter().map(Mix::shown).collect()).collect(),
        row_height: (HEIGHT / rows.max(1)).clamp(1, ROW),
        groups,
        times: times(until),
        legend: legend(scenario, segments),
    }
}

/// The name with how many there are; a name that is too long is cut and not the number.
fn label(group: &Group) -> String {
    let many = if group.count == 1 { String::new() } else { format!(" x{}", group.count) };
    if group.name.chars().count() + many.len() <= LABEL {
        return format!("{}{many}", group.name);
    }
    let name: String = group.name.chars().take(LABEL - 2 - many.len()).collect();
    format!("{name}..{many}")
}

fn column(at: Ns, until: Ns) -> f64 {
    (at.min(until) as f64 / until as f64) * WIDTH as f64
}

/// Few jobs have a colour each; many are told apart by their kernel.
fn colour_of(scenario: &Scenario, segment: &Segment) -> usize {
    if by_kernel(scenario) { segment.kernel as usize } else { segment.job as usize }
}

fn by_kernel(scenario: &Scenario) -> bool {
    scenario.jobs.len() > PALETTE.len() || scenario.jobs.is_empty() || scenario.jobs.iter().any(|job| job.stages.len() > 1)
}

fn legend(scenario: &Scenario, segments: &[Segment]) -> Vec<(Colour, String)> {
    let names: Vec<&str> = if by_kernel(scenario) {
        scenario.kernels.iter().map(|kernel| kernel.name.as_str()).collect()
    } else {
        scenario.jobs.iter().map(|job| job.name.as_str()).collect()
    };
    let mut legend: Vec<(Colour, String)> = names.iter().zip(PALETTE).map(|(name, colour)| (colour, (*name).to_owned())).collect();
    if names.len() > PALETTE.len() {
        legend.push((WHITE, format!("and {} more, in the same colours again", names.len() - PALETTE.len())));
    }
    if segments.iter().any(|segment| segment.in_vain) {
        legend.push((VAIN, "in vain".to_owned()));
    }
    legend.push((IDLE, "idle".to_owned()));
    legend
}

/// About eight round times.
fn times(until: Ns) -> Vec<(usize, String)> {
    let seconds = until as f64 / 1e9;
    let mut step = 10f64.powf((seconds / 8.0).log10().floor());
    for factor in [2.0, 2.5, 2.0] {
        if seconds / step > 9.0 {
            step *= factor;
        }
    }
    let digits = if step < 1.0 { (-step.log10()).ceil() as usize } else { 0 };
    let count = (seconds / step) as usize;
    (0..=count).map(|n| ((column((n as f64 * step * 1e9) as Ns, until)) as usize, format!("{:.digits$} s", n as f64 * step))).collect()
}

/// What a pixel has seen: each colour by the part of the pixel that it covers.
#[derive(Clone, Default)]
struct Mix {
    sum: [f64; 3],
    covered: f64,
}

impl Mix {
    fn add(&mut self, colour: Colour, part: f64) {
        self.sum.iter_mut().zip(colour).for_each(|(sum, channel)| *sum += f64::from(channel) * part);
        self.covered += part;
    }

    fn shown(&self) -> Colour {
        // Leases overlap at their ends: more than all of a pixel is all of it.
        let part = self.covered.min(1.0);
        let mut shown = IDLE;
        if self.covered > 0.0 {
            for (channel, (sum, idle)) in shown.iter_mut().zip(self.sum.iter().zip(IDLE)) {
                *channel = (sum / self.covered * part + f64::from(idle) * (1.0 - part)).round() as u8;
            }
        }
        shown
    }
}
