// Rules for the modules of the report (ids_plugin/sinks/assets/report).
import js from "@eslint/js";
import globals from "globals";

const vega = { vega: "readonly", vegaLite: "readonly", vegaInterpreter: "readonly" };

export default [
  js.configs.recommended,
  {
    languageOptions: { sourceType: "module", globals: { ...globals.browser, ...vega } },
    rules: {
      "max-len": ["error", { code: 100 }],
      "max-lines-per-function": ["error", { max: 60 }],
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-restricted-properties": [
        "error",
        { property: "innerHTML", message: "text from the traffic is never markup" },
        { property: "outerHTML", message: "text from the traffic is never markup" },
        { property: "insertAdjacentHTML", message: "text from the traffic is never markup" },
      ],
      "no-shadow": "error",
      "no-unused-vars": "error",
      "no-var": "error",
      "prefer-const": "error",
      eqeqeq: "error",
    },
  },
];
