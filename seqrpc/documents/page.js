"use strict";
{
    const search = document.getElementById("page:search");
    const found = document.getElementById("page:found");
    const contents = document.getElementById("page:contents");
    const entries = Array.from(document.querySelectorAll("main article"), (article) => ({
        article,
        link: null,
        text: article.querySelector("h3").textContent + " " + (article.querySelector(".lead")?.textContent ?? ""),
    }));
    const byId = new Map(entries.map((entry) => [entry.article.id, entry]));
    for (const link of contents.querySelectorAll("a")) {
        const entry = byId.get(link.getAttribute("href").slice(1));
        if (entry) entry.link = link;
    }
    for (const entry of entries) entry.text = entry.text.toLowerCase();

    const filter = () => {
        const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
        let number = 0;
        for (const entry of entries) {
            const fits = words.every((word) => entry.text.includes(word));
            entry.article.hidden = !fits;
            if (entry.link) entry.link.parentElement.hidden = !fits;
            number += fits;
        }
        for (const group of document.querySelectorAll(".group"))
            group.hidden = words.length > 0 && !group.querySelector(".entry:not([hidden])");
        found.textContent = words.length ? `${number} of ${entries.length} found` : "";
    };
    const clear = () => {
        search.value = "";
        filter();
    };
    const show = () => {
        // Whoever follows a link to what the filter hides wants to see it.
        const id = location.hash.slice(1);
        const target = document.getElementById(id);
        if (!target?.closest("[hidden]")) return;
        clear();
        target.scrollIntoView();
    };

    search.closest("[hidden]").hidden = false;
    contents.open = matchMedia("(min-width: 60rem)").matches;
    search.addEventListener("input", () => {
        contents.open = true;
        filter();
    });
    search.addEventListener("keydown", (event) => {
        if (event.key === "Escape") clear();
        if (event.key !== "Enter") return;
        const first = contents.querySelector(".entry:not([hidden]) > a");
        if (first && search.value.trim()) first.focus(), first.click();
    });
    document.addEventListener("keydown", (event) => {
        if (event.key !== "/" || event.ctrlKey || event.altKey || event.metaKey) return;
        if (event.target.closest("input, textarea, select")) return;
        event.preventDefault();
        search.focus();
        search.select();
    });
    addEventListener("hashchange", show);
    if (search.value) filter(); // the browser has kept it
}
