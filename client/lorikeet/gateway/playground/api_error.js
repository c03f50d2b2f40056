/** An answer other than success, in fal's shapes. */

export class ApiError extends Error {
  /** `detail`: a text, or a list of `{loc, msg}`, one for each invalid field. */
  constructor(status, detail) {
    super(typeof detail === "string" ? detail : detail.map((item) => `${dotted(item.loc)}: ${item.msg}`).join("\n"));
    this.status = status;
    this.detail = detail;
  }

  static async of(response) {
    const text = await response.text();
    return new ApiError(response.status, detailOf(text) ?? `${response.status} ${response.statusText}`);
  }

  /** `[{path: ["loras", 0, "scale"], message}]`; empty for an error that names no field. */
  get fields() {
    if (typeof this.detail === "string") return [];
    return this.detail.map((item) => ({ path: pathOf(item.loc), message: item.msg }));
  }
}

function detailOf(text) {
  try {
    const { detail } = JSON.parse(text);
    return Array.isArray(detail) || typeof detail === "string" ? detail : null;
  } catch {
    return null; // a web page of something between the gateway and this page
  }
}

/** The field's path: without the leading "body", and without the tags of unions. */
function pathOf(location) {
  return location.slice(1).filter((part) => !(typeof part === "string" && part.startsWith("<")));
}

function dotted(location) {
  const parts = pathOf(location).map((part) => (typeof part === "number" ? `[${part}]` : `.${part}`));
  return parts.join("").replace(/^\./, "") || "request";
}
