//! The area bound for unrelated machines as a linear program: kinds of work `k`, groups of machines `g`, `a[k][g]` the time of one unit of
//! work of kind `k` on one machine of `g` (`None` where it cannot run), `c[g]` how much machine time the group has.
//!
//! ```text
//!   least  T   such that   sum_g x[k][g] = w[k]      every unit is done somewhere
//!                          sum_k a[k][g] x[k][g] <= T c[g]
//! ```
//!
//! Solved by the simplex method (Dantzig, 1947) on a dense tableau that begins with every kind on its fastest group, so that no first phase is
//! needed. What is returned is not the tableau's own value but the dual solution's, evaluated anew: for *any* prices `v` of machine time with
//! `sum_g c[g] v[g] = 1`, `sum_k w[k] min_g a[k][g] v[g]` is a lower bound (weak duality), so that rounding, or a cut-off after too many
//! steps, can make the bound weaker but never wrong.

const EPSILON: f64 = 1e-11;

/// The least T; infinite when some kind of work can run nowhere.
pub fn area(work: &[f64], times: &[Vec<Option<f64>>], capacity: &[f64]) -> f64 {
    let kinds: Vec<usize> = (0..work.len()).filter(|k| work[*k] > 0.0).collect();
    let groups: Vec<usize> = (0..capacity.len()).filter(|g| capacity[*g] > 0.0).collect();
    if kinds.is_empty() {
        return 0.0;
    }
    if kinds.iter().any(|k| groups.iter().all(|g| times[*k][*g].is_none())) {
        return f64::INFINITY;
    }
    // Numbers near 1: nanoseconds and millions of tasks would eat the digits.
    let scale_work = kinds.iter().map(|k| work[*k]).fold(0.0, f64::max);
    let scale_capacity = groups.iter().map(|g| capacity[*g]).fold(0.0, f64::max);
    let scale_time = kinds.iter().flat_map(|k| groups.iter().filter_map(|g| times[*k][*g])).fold(0.0, f64::max);
    if scale_time == 0.0 {
        return 0.0;
    }
    let w: Vec<f64> = kinds.iter().map(|k| work[*k] / scale_work).collect();
    let c: Vec<f64> = groups.iter().map(|g| capacity[*g] / scale_capacity).collect();
    let a: Vec<Vec<Option<f64>>> = kinds.iter().map(|k| groups.iter().map(|g| times[*k][*g].map(|t| t / scale_time)).collect()).collect();
    let prices = Tableau::new(&w, &a, &c).solve();
    value(&w, &a, &c, &prices) * scale_work * scale_time / scale_capacity
}

/// What the prices prove.
fn value(w: &[f64], a: &[Vec<Option<f64>>], c: &[f64], prices: &[f64]) -> f64 {
    let total: f64 = prices.iter().zip(c).map(|(v, c)| v * c).sum();
    if total <= 0.0 {
        return 0.0;
    }
    let cheapest = |times: &Vec<Option<f64>>| times.iter().zip(prices).filter_map(|(a, v)| a.map(|a| a * v)).fold(f64::INFINITY, f64::min);
    w.iter().zip(a).map(|(w, times)| w * cheapest(times)).sum::<f64>() / total
}

/// Rows: one per kind, one per group, and the objective. Columns: x of each pair that is possible, the slack of each group, T, and the right side.
struct Tableau {
    rows: Vec<Vec<f64>>,
    basis: Vec<usize>,
    kinds: usize,
    groups: usize,
    pairs: usize,
}

impl Tableau {
    fn new(w: &[f64], a: &[Vec<Option<f64>>], c: &[f64]) -> Tableau {
        let (kinds, groups) = (w.len(), c.len());
        let pairs: Vec<(usize, usize, f64)> =
            (0..kinds).flat_map(|k| (0..groups).map(move |g| (k, g))).filter_map(|(k, g)| a[k][g].map(|time| (k, g, time))).collect();
        let columns = pairs.len() + groups + 2;
        let (t, right) = (columns - 2, columns - 1);
        let mut rows = vec![vec![0.0; columns]; kinds + groups + 1];
        for (column, (k, g, time)) in pairs.iter().enumerate() {
            rows[*k][column] = 1.0;
            rows[kinds + g][column] = *time;
        }
        for k in 0..kinds {
            rows[k][right] = w[k];
        }
        for g in 0..groups {
            rows[kinds + g][pairs.len() + g] = 1.0;
            rows[kinds + g][t] = -c[g];
        }
        rows[kinds + groups][t] = 1.0;
        let mut tableau = Tableau { rows, basis: vec![usize::MAX; kinds + groups], kinds, groups, pairs: pairs.len() };
        // Every kind on its fastest group; then T as large as the most loaded group needs.
        for k in 0..kinds {
            let own = pairs.iter().enumerate().filter(|(_, (kind, ..))| *kind == k);
            let fastest = own.min_by(|(_, a), (_, b)| a.2.total_cmp(&b.2));
            if let Some((column, _)) = fastest {
                tableau.pivot(k, column);
            }
        }
        for g in 0..groups {
            tableau.basis[kinds + g] = pairs.len() + g;
        }
        let load = |g: &usize| -tableau.rows[kinds + g][right] / c[*g];
        if let Some(most) = (0..groups).max_by(|a, b| load(a).total_cmp(&load(b))) {
            tableau.pivot(kinds + most, t);
        }
        tableau
    }

    fn pivot(&mut self, row: usize, column: usize) {
        let by = self.rows[row][column];
        self.rows[row].iter_mut().for_each(|x| *x /= by);
        let own = std::mem::take(&mut self.rows[row]);
        for other in &mut self.rows {
            let factor = other.get(column).copied().unwrap_or(0.0);
            if factor != 0.0 {
                other.iter_mut().zip(&own).for_each(|(x, y)| *x -= factor * y);
                other[column] = 0.0;
            }
        }
        self.rows[row] = own;
        self.basis[row] = column;
    }

    /// Prices of the groups' machine time, never below 0.
    fn solve(mut self) -> Vec<f64> {
        let (objective, columns) = (self.kinds + self.groups, self.pairs + self.groups + 1);
        let limit = 50 * (self.kinds + self.groups) + 1_000;
        for step in 0..limit {
            let costs = &self.rows[objective];
            let improving = (0..columns).filter(|column| costs[*column] < -EPSILON);
            // The steepest is quickest; after a while the first one, which cannot go in a circle (Bland, 1977).
            let entering =
                if step < limit / 2 { improving.min_by(|a, b| costs[*a].total_cmp(&costs[*b])) } else { improving.into_iter().next() };
            let Some(column) = entering else { break };
            let mut leaving: Option<(usize, f64)> = None;
            for row in 0..objective {
                let by = self.rows[row][column];
                if by <= EPSILON {
                    continue;
                }
                let ratio = self.rows[row][columns].max(0.0) / by;
                let better = leaving
                    .is_none_or(|(best, least)| ratio < least - EPSILON || (ratio < least + EPSILON && self.basis[row] < self.basis[best]));
                if better {
                    leaving = Some((row, ratio));
                }
            }
            let Some((row, _)) = leaving else { break };
            self.pivot(row, column);
        }
        (0..self.groups).map(|g| self.rows[objective][self.pairs + g].max(0.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-6 * wanted.abs().max(1.0), "{found}, not {wanted}");
    }

    #[test]
    fn related_machines_share_by_speed() {
        // 20 : 1, one of each: 21 units of work a second.
        near(area(&[2100.0], &[vec![Some(1.0), Some(0.05)]], &[1.0, 1.0]), 100.0);
        near(area(&[2100.0], &[vec![Some(1.0), Some(0.05)]], &[40.0, 1.0]), 35.0);
    }

    #[test]
    fn each_kind_goes_where_it_is_fast() {
        let times = [vec![Some(1.0), Some(10.0)], vec![Some(10.0), Some(1.0)]];
        near(area(&[100.0, 100.0], &times, &[1.0, 1.0]), 100.0);
        // The second kind is more than its group does in time: its rest goes to the other one, ten times as slow.
        near(area(&[100.0, 320.0], &times, &[1.0, 1.0]), 300.0);
    }

    #[test]
    fn work_that_runs_nowhere_takes_for_ever_and_none_takes_no_time() {
        assert_eq!(area(&[1.0], &[vec![None, None]], &[1.0, 1.0]), f64::INFINITY);
        assert_eq!(area(&[1.0], &[vec![Some(1.0)]], &[0.0]), f64::INFINITY);
        assert_eq!(area(&[0.0], &[vec![None]], &[1.0]), 0.0);
        near(area(&[6.0, 4.0], &[vec![None, Some(2.0)], vec![Some(1.0), Some(1.0)]], &[1.0, 1.0]), 12.0);
    }

    /// Against a search over all ways to split two kinds among three groups.
    #[test]
    fn agrees_with_an_exhaustive_search() {
        let mut state = 7u64;
        let mut draw = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            1.0 + (state >> 33) as f64 / (1u64 << 31) as f64 * 9.0
        };
        for _ in 0..20 {
            let times: Vec<Vec<Option<f64>>> = (0..2).map(|_| (0..3).map(|_| Some(draw())).collect()).collect();
            let capacity = [draw(), draw(), draw()];
            let work = [draw() * 100.0, draw() * 100.0];
            let found = area(&work, &times, &capacity);
            let steps = 60;
            let mut best = f64::INFINITY;
            let at = |k: usize, g: usize| times[k][g].unwrap_or(0.0);
            for (i, j) in (0..=steps).flat_map(|i| (0..=steps - i).map(move |j| (i, j))) {
                let one = [i, j, steps - i - j].map(|part| work[0] * f64::from(part) / f64::from(steps));
                for (m, n) in (0..=steps).flat_map(|m| (0..=steps - m).map(move |n| (m, n))) {
                    let two = [m, n, steps - m - n].map(|part| work[1] * f64::from(part) / f64::from(steps));
                    let load = (0..3).map(|g| (one[g] * at(0, g) + two[g] * at(1, g)) / capacity[g]).fold(0.0, f64::max);
                    best = best.min(load);
                }
            }
            assert!(found <= best + 1e-9 && found > best * 0.93, "{found} against {best}");
        }
    }
}
