// What Grafana would show of values, by Grafana's own code: texts and colours, overrides included.
//
// In: {"panels": [{"fieldConfig": …, "fields": [{"name": …, "refId": …, "values": […]}]}]}, as JSON on standard
// input, where "NaN" stands for NaN. Out: for each field of each panel a list of {"text": …, "color": …}.
"use strict";

// Standard output is for the answer alone; a translation library there praises itself.
console.log = console.info = console.error;

// The library asks for a browser when it is loaded.
const { JSDOM } = require("jsdom");
globalThis.window = new JSDOM("", { url: "http://localhost/" }).window;
globalThis.document = window.document;

const grafana = require("@grafana/data");

// The properties of any panel that the dashboards set, under their own names. Grafana registers them with the
// editor of each, which is not needed to read them.
const PROPERTIES = ["color", "decimals", "mappings", "max", "min", "noValue", "thresholds", "unit"];
const registry = new grafana.FieldConfigOptionsRegistry(() =>
  PROPERTIES.map((id) => ({
    id,
    path: id,
    name: id,
    process: grafana.identityOverrideProcessor,
    shouldApply: () => true,
  })),
);
const theme = grafana.createTheme({ colors: { mode: "dark" } });

/** As Grafana does when it loads a dashboard: JSON has no minus infinity. */
function restoreInfinity(fieldConfig) {
  for (const step of fieldConfig.defaults.thresholds?.steps ?? []) {
    step.value ??= -Infinity;
  }
}

function shown({ fieldConfig, fields }) {
  restoreInfinity(fieldConfig);
  const frames = fields.map(({ name, refId, values }) =>
    grafana.toDataFrame({
      refId,
      fields: [
        {
          name: "Value",
          type: grafana.FieldType.number,
          config: { displayNameFromDS: name },
          values: values.map((value) => (value === "NaN" ? NaN : value)),
        },
      ],
    }),
  );
  const applied = grafana.applyFieldOverrides({
    data: frames,
    fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: (text) => text,
    theme,
    timeZone: "utc",
  });
  return applied.map(({ fields: [field] }) =>
    field.values.map((value) => {
      const display = field.display(value);
      return { text: grafana.formattedValueToString(display), color: display.color };
    }),
  );
}

const units = grafana.getValueFormats().flatMap(({ submenu }) => submenu.map(({ value }) => value));
const { panels } = JSON.parse(require("node:fs").readFileSync(0, "utf-8"));
process.stdout.write(JSON.stringify({ units, panels: panels.map(shown) }));
