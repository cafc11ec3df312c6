// Pictures of every arm from the same prompts and the same noise, side by side.
#include <algorithm>
#include <cstdio>

#include "experiments/report/html.h"
#include "experiments/report/sections.h"
#include "runtime/error.h"
#include "runtime/file.h"

namespace laptopdiff::report {
namespace fs = std::filesystem;
namespace {

using runtime::cat;

constexpr std::size_t kRows = 12, kColumns = 8;
constexpr std::size_t kPageBytes = 24u << 20;  // of pictures: larger ones get fewer rows
constexpr std::uint64_t kPictureBytes = 64u << 20;
constexpr std::uint32_t kSmallSide = 128;  // up to here pixels are shown as squares
constexpr std::string_view kPngStart("\x89PNG\r\n\x1a\n", 8);

fs::path picture_path(const fs::path& folder, std::size_t index) {
  char name[32];
  std::snprintf(name, sizeof name, "%06zu.png", index);
  return folder / name;
}

struct Picture {
  std::string bytes;  // empty: not there
  std::uint32_t width = 0, height = 0;
};

std::uint32_t big_endian(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

// Size from the header chunk, which the format puts first.
Picture read_picture(const fs::path& path) {
  if (!fs::is_regular_file(path)) return {};
  Picture picture{runtime::read_file(path, kPictureBytes), 0, 0};
  if (picture.bytes.size() < 24 || std::string_view(picture.bytes).substr(0, 8) != kPngStart) {
    throw runtime::input_error(path.string(), ": is not a PNG picture");
  }
  picture.width = big_endian(picture.bytes, 16);
  picture.height = big_endian(picture.bytes, 20);
  return picture;
}

// Settings with pictures; of several seeds the first.
std::vector<const Setting*> columns_of(const Material& material) {
  std::vector<const Setting*> columns;
  for (const Setting& setting : material.settings) {
    if (!setting.first().images.empty()) columns.push_back(&setting);
  }
  return columns;
}

// As many rows as every column has, up to kRows.
std::size_t rows_there(const std::vector<const Setting*>& columns) {
  std::size_t rows = 0;
  while (rows < kRows && std::all_of(columns.begin(), columns.end(), [&](const Setting* setting) {
           return fs::is_regular_file(picture_path(setting->first().images, rows));
         })) {
    ++rows;
  }
  return rows;
}

std::string prompt_of(const StudyResults& results, std::size_t row) {
  return row < results.prompts.size() ? results.prompts[row] : cat("picture ", row);
}

std::string cell(const Picture& picture, const std::string& prompt, const std::string& arm) {
  const std::string classes = picture.width <= kSmallSide && picture.height <= kSmallSide ? " class=\"pixels\"" : "";
  return cat("<td><img", classes, " width=\"80\" height=\"80\" alt=\"", escape(cat(prompt, ", by ", arm)),
             "\" title=\"", escape(arm), "\" src=\"data:image/png;base64,", base64(picture.bytes), "\"></td>");
}

struct Grid {
  std::string rows;
  std::size_t count = 0;
};

Grid draw_rows(const StudyResults& results, const std::vector<const Setting*>& columns, std::size_t most) {
  Grid grid;
  std::size_t bytes = 0;
  for (; grid.count < most && (grid.count == 0 || bytes * (grid.count + 1) / grid.count <= kPageBytes); ++grid.count) {
    const std::string prompt = prompt_of(results, grid.count);
    grid.rows += cat("<tr><th scope=\"row\">", escape(prompt), "</th>");
    for (const Setting* setting : columns) {
      const Picture picture = read_picture(picture_path(setting->first().images, grid.count));
      bytes += picture.bytes.size();
      grid.rows += cell(picture, prompt, setting->label);
    }
    grid.rows += "</tr>\n";
  }
  return grid;
}

}  // namespace

Section images_section(const Material& material) {
  Section section{"images", "What they draw", ""};
  std::vector<const Setting*> columns = columns_of(material);
  const std::size_t all = columns.size();
  columns.resize(std::min(all, kColumns));
  const std::size_t most = columns.empty() ? 0 : rows_there(columns);
  if (most == 0) {
    section.body = missing(columns.empty() ? "Left out: no arm's pictures are there."
                                           : "Left out: the arms have no pictures in common.");
    return section;
  }
  std::string head = "<th scope=\"col\">Prompt</th>";
  for (const Setting* setting : columns)
    head += cat("<th scope=\"col\"><span class=\"band ", color_class(*setting), "\"></span>", breakable(setting->label),
                "</th>");
  const Grid grid = draw_rows(material.results, columns, most);
  section.body = figure(scrolling(cat("<table class=\"pictures\"><thead><tr>", head, "</tr></thead><tbody>", grid.rows,
                                      "</tbody></table>"),
                                  "Pictures of every arm"),
                        cat("The first ", grid.count,
                            " prompts, not chosen by their looks. In a row every arm starts from the same noise, so "
                            "differences come from the model alone."));
  for (const Setting& setting : material.settings) {
    if (setting.first().images.empty()) section.body += missing(cat(setting.label, ": its pictures are not there."));
  }
  if (all > columns.size())
    section.body += missing(cat(all - columns.size(), " more arms have pictures; ", kColumns, " are shown."));
  if (material.results.prompts.empty())
    section.body += missing(
        "The prompts are left out: their file is not there, or is not the one the pictures were measured with.");
  return section;
}

}  // namespace laptopdiff::report
