//! Traffic between providers as a picture, SVG or PNG: from whom to whom with random selection and with maps, and what
//! crossed over time.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::series::LineSeries;

use crate::error::SimError;
use crate::plot::{BANK, FONT, INK, RIVER, to_file};
use crate::report::{IspsReport, Report};
use crate::traffic::TRAFFIC_BIN_US;

/// Pixels.
const SIZE: (u32, u32) = (1280, 860);
/// Of the picture's height, the matrices.
const MATRICES: i32 = 480;

type Failure = Box<dyn std::error::Error>;
type Area<'a, B> = DrawingArea<B, Shift>;

/// Writes a picture of two runs of the same viewers, with random selection and with maps, to `file`, whose name ends in `.svg`
/// or `.png`.
///
/// # Errors
/// [`SimError::Plot`] when the file cannot be written or has another ending.
pub fn write(random: &Report, maps: &Report, file: &Path) -> Result<(), SimError> {
    to_file(file, SIZE, |root| draw(random, maps, root), |root| draw(random, maps, root))
}

fn draw<B: DrawingBackend>(random: &Report, maps: &Report, root: &Area<'_, B>) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    let (Some(before), Some(after)) = (&random.isps, &maps.isps) else {
        return Err("there are no ISPs in this run".into());
    };
    root.fill(&WHITE)?;
    let title = format!(
        "{} viewers of {} ISPs, {} s measured, seed {}",
        maps.peers,
        after.isps.len(),
        maps.duration_ms / 1000,
        maps.seed
    );
    let root = root.titled(&title, (FONT, 24).into_font().color(&INK))?;
    let (upper, lower) = root.split_vertically(MATRICES);
    let panels = upper.split_evenly((1, 2));
    matrix(before, "random selection", &panels[0])?;
    matrix(after, &format!("maps: {}", after.alto), &panels[1])?;
    over_time(
        &[(before, BANK, "random selection".to_owned()), (after, RIVER, format!("maps: {}", after.alto))],
        maps,
        &lower,
    )?;
    root.present()?;
    Ok(())
}

/// MB from each provider (row) to each (column); darker is more of what the column receives.
fn matrix<B: DrawingBackend>(isps: &IspsReport, what: &str, area: &Area<'_, B>) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    let n = isps.isps.len();
    let name = |i: f64| isps.isps.get(i as usize).map_or(String::new(), |isp| isp.name.clone());
    let caption = format!("MB from (row) to (column), {what}: {:.1} % crosses", isps.cross_ratio * 100.0);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 18))
        .margin(12)
        .x_label_area_size(12)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..n as f64, 0.0..n as f64 + 0.4)?;
    let into = |to: usize| isps.bytes.iter().map(|row| row[to]).sum::<u64>().max(1) as f64;
    for (from, row) in isps.bytes.iter().enumerate() {
        let top = (n - from) as f64;
        for (to, bytes) in row.iter().enumerate() {
            let share = *bytes as f64 / into(to);
            let corners = [(to as f64 + 0.02, top - 0.98), (to as f64 + 0.98, top - 0.02)];
            chart.draw_series([Rectangle::new(corners, RIVER.mix(0.05 + 0.85 * share).filled())])?;
            let ink = if share > 0.5 { WHITE } else { INK };
            let text = format!("{:.1}", *bytes as f64 / 1e6);
            let style = (FONT, 16).into_font().color(&ink);
            chart.draw_series([Text::new(text, (to as f64 + 0.3, top - 0.42), style)])?;
        }
    }
    let style = || (FONT, 14).into_font().color(&INK);
    for i in 0..n {
        chart.draw_series([Text::new(name(i as f64), (i as f64 + 0.3, n as f64 + 0.25), style())])?;
        let at = chart.backend_coord(&(0.0, (n - i) as f64 - 0.42));
        area.draw(&Text::new(
            name(i as f64),
            (at.0 - 60 - area.get_base_pixel().0, at.1 - area.get_base_pixel().1),
            style(),
        ))?;
    }
    Ok(())
}

fn over_time<B: DrawingBackend>(
    lines: &[(&IspsReport, RGBColor, String)],
    report: &Report,
    area: &Area<'_, B>,
) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    let bin_s = TRAFFIC_BIN_US as f64 / 1e6;
    let seconds = report.duration_ms as f64 / 1000.0;
    let rate = |bytes: u64| bytes as f64 * 8.0 / bin_s / 1e6;
    let most =
        lines.iter().flat_map(|(isps, ..)| &isps.bins).map(|bin| rate(bin.crossing)).fold(0.1, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("Mbit/s of chunks between ISPs", (FONT, 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..seconds, 0.0..most * 1.1)?;
    chart.configure_mesh().x_desc("s").label_style((FONT, 13)).light_line_style(TRANSPARENT).draw()?;
    for (isps, color, name) in lines {
        let color = *color;
        let whole = isps.bins.iter().take(seconds as usize).enumerate();
        let points = whole.map(|(i, bin)| ((i as f64 + 0.5) * bin_s, rate(bin.crossing)));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .label_font((FONT, 13))
        .background_style(WHITE.mix(0.8))
        .border_style(INK)
        .draw()?;
    Ok(())
}
