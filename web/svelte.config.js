// Components are written with runes; styles go into a file, never into the script (content security policy).
export default { compilerOptions: { runes: true, css: 'external' } };
