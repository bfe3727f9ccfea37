//! Gradients: a few colours on a circle, joined smoothly.

pub(super) const NAMES: &[&str] = &["ocean", "ember", "forest", "mono"];

/// Entries of a gradient; more than eight bits per channel can show.
pub(super) const LENGTH: usize = 4096;

/// A colour and its place on the circle, 0..1.
type Stop = (f64, [f64; 3]);

fn stops(name: &str) -> &'static [Stop] {
    match name {
        "ember" => &[
            (0.0, [18.0, 4.0, 22.0]),
            (0.22, [110.0, 14.0, 40.0]),
            (0.45, [232.0, 82.0, 24.0]),
            (0.62, [255.0, 214.0, 110.0]),
            (0.74, [255.0, 248.0, 224.0]),
            (0.88, [120.0, 60.0, 110.0]),
        ],
        "forest" => &[
            (0.0, [6.0, 26.0, 30.0]),
            (0.25, [24.0, 100.0, 74.0]),
            (0.5, [190.0, 214.0, 92.0]),
            (0.65, [250.0, 246.0, 214.0]),
            (0.82, [150.0, 92.0, 40.0]),
        ],
        "mono" => &[(0.0, [8.0, 8.0, 10.0]), (0.5, [246.0, 246.0, 242.0])],
        _ => &[
            (0.0, [4.0, 14.0, 72.0]),
            (0.18, [30.0, 104.0, 196.0]),
            (0.42, [236.0, 252.0, 255.0]),
            (0.62, [255.0, 176.0, 28.0]),
            (0.84, [64.0, 14.0, 34.0]),
        ],
    }
}

/// Colours around the circle, each channel interpolated between the stops.
pub(super) fn gradient(name: &str) -> Vec<[u8; 3]> {
    let stops = stops(name);
    (0..LENGTH).map(|index| colour_at(stops, index as f64 / LENGTH as f64)).collect()
}

fn colour_at(stops: &[Stop], place: f64) -> [u8; 3] {
    let after = stops.iter().position(|stop| stop.0 > place).unwrap_or(stops.len());
    // The first stop follows the last one, once around.
    let (from, to) = (stops[after - 1], if after == stops.len() { (1.0, stops[0].1) } else { stops[after] });
    let share = (place - from.0) / (to.0 - from.0);
    // Level at both ends, so that no stop shows as an edge.
    let share = share * share * (3.0 - 2.0 * share);
    std::array::from_fn(|channel| (from.1[channel] + (to.1[channel] - from.1[channel]) * share + 0.5) as u8)
}
