"use strict";
const $ = id => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
const query = extra => "?" + new URLSearchParams({...extra, ...(token ? {token} : {})});
async function getJson(path, extra = {}) {
  const answer = await fetch(path + query(extra)), content = await answer.json();
  if (!answer.ok) throw new Error(content.error || content.detail);
  return content;
}
