// The API's description, shown by Swagger UI. Tokens typed in here stay in this tab.

// Its dark colours are a class, which its own button sets; here they follow the browser, as on the other pages.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  // Neither sends the description to a service of others.
  validatorUrl: null,
  queryConfigEnabled: false,
});
